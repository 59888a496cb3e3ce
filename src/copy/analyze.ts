import type { TableRef } from '../core/tables.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';
import { qualifiedName } from '../pg/identifiers.ts';
import { Session } from '../pg/session.ts';
import { sqlstate, sqlstateOf } from '../pg/sqlstate.ts';

export interface AnalyzeOptions {
  readonly target: ConnectionSpec;
  readonly job: string;
  readonly jobs: number;
  /** Largest first. Tables that are gone meanwhile are passed over. */
  readonly tables: readonly TableRef[];
  /** `vacuum` also writes the visibility map of tables that were not loaded frozen, for index-only scans. */
  readonly mode: 'analyze' | 'vacuum';
  readonly signal: AbortSignal;
}

/** Gathers the statistics that the planner needs, several tables at once. */
export async function analyzeTables(options: AnalyzeOptions): Promise<void> {
  const queue = [...options.tables];
  const verb = options.mode === 'vacuum' ? 'vacuum (analyze)' : 'analyze';
  const worker = async () => {
    await using session = await Session.open(options.target, { role: 'analyze', job: options.job, side: 'the target', signal: options.signal });
    for (let table = queue.shift(); table; table = queue.shift()) {
      try {
        await session.query(`${verb} ${qualifiedName(table.schema, table.name)}`);
      } catch (error) {
        if (sqlstateOf(error) !== sqlstate.undefinedTable) throw error;
      }
    }
  };
  await Promise.all(Array.from({ length: Math.max(1, Math.min(options.jobs, queue.length)) }, worker));
}
