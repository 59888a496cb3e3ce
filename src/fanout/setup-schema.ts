import type { Emit } from '../core/events.ts';
import { fingerprint } from '../core/job-folder.ts';
import { noRules } from '../core/selection/rules.ts';
import { tableKey } from '../core/tables.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';
import { Session } from '../pg/session.ts';
import { clone } from '../workflows/clone.ts';
import type { FanoutTarget } from './config.ts';
import { exactTables, resolveTables, schemaFaults, type SchemaFault } from './tables.ts';

/**
 * Makes the tables that a target lacks, as the source has them, without rows, owners, roles and grants. Tables that are there are left alone; columns that they lack are returned. A
 * renamed table has to be made by hand: its copy would bear the source's name.
 */
export async function setUpSchema(source: ConnectionSpec, target: FanoutTarget, signal: AbortSignal, emit: Emit): Promise<{ readonly made: number; readonly left: readonly SchemaFault[] }> {
  await using onSource = await Session.open(source, { role: 'fanout', job: target.name, side: 'the source', signal });
  await using onTarget = await Session.open(target.connection, { role: 'fanout', job: target.name, side: `target ${target.name}`, signal });
  const tables = await resolveTables(onSource, target);
  const faults = await schemaFaults(onTarget, tables);
  const missing = new Set(faults.filter((f) => f.column === undefined).map((f) => tableKey(f.table)));
  const make = tables.chosen.filter((s) => missing.has(tableKey(s.mapTo)) && tableKey(s.mapTo) === tableKey(s.table)).map((s) => s.table);
  if (make.length > 0) {
    const include = exactTables(make);
    // A list of tables has a ledger of its own: another list is another piece of work.
    const job = `fs_${fingerprint(make.map(tableKey).join('\n'))}`;
    await clone({ source, target: target.connection, job, rules: { ...noRules, includeTables: include, schemaOnlyTables: include }, roles: false, owners: false, privileges: false, resume: false, statistics: 'none', signal, onEvent: emit });
  }
  return { made: make.length, left: await schemaFaults(onTarget, tables) };
}
