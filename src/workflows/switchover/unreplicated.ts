import { CopyLedger } from '../../copy/copy-ledger.ts';
import { keptSelection } from '../../copy/kept-selection.ts';
import { copyLargeObjects } from '../../copy/large-objects.ts';
import { copyTables } from '../../copy/copy-tables.ts';
import { openSnapshot } from '../../copy/snapshot.ts';
import { fitToTarget, planCopy } from '../../copy/table-plan.ts';
import { tableKey, type TableRef } from '../../core/tables.ts';
import type { ConnectionSpec } from '../../pg/conninfo.ts';
import { Session } from '../../pg/session.ts';

export interface UnreplicatedOptions {
  readonly source: ConnectionSpec;
  readonly target: ConnectionSpec;
  readonly job: string;
  /** Whether a table's rows belong to the job. */
  readonly includes: (table: TableRef) => boolean;
  readonly signal: AbortSignal;
}

/**
 * Copies again what logical replication does not carry, once writes have stopped: rows of unlogged tables and large objects [hard cases 10, 11].
 * Where nothing was written since the first copy nothing is done. Returns counts.
 */
export async function carryUnreplicated(options: UnreplicatedOptions): Promise<{ tables: number; rows: number; objects: number; bytes: number }> {
  const { source, target, job, signal } = options;
  await using snapshot = await openSnapshot(source, { job, signal });
  await using session = await Session.open(target, { role: 'carry', job, side: 'the target', signal });
  const encoding = await encodingOf(snapshot.session);
  const targetEncoding = await encodingOf(session);
  const kept = await keptSelection(session, job);
  const all = await planCopy(snapshot.session, { splitBytes: 0, format: 'auto', sameEncoding: encoding === 'UTF8' && targetEncoding === 'UTF8', selection: { ...kept, choose: (table) => (options.includes(table) ? 'copy' : 'skip') } });
  const unlogged = all.filter((t) => t.unlogged && !t.extensionConfig);
  const ledger = await CopyLedger.open(session, job);
  let rows = 0;
  if (unlogged.length > 0) {
    const outcome = await copyTables({
      source, target, job, snapshot, ledger, encoding, targetEncoding, signal, jobs: 2, tables: await fitToTarget(unlogged, session), emit: () => undefined, onCopied: () => undefined,
      // The table's state is what it was: its rows are as of now, and no change of it comes by the stream.
      copiedSql: () => 'select 1',
    });
    const [failed] = outcome.failed;
    if (failed) throw failed.error;
    if (outcome.left.length > 0) throw outcome.reason;
    rows = outcome.rows;
  }
  const { objects, bytes } = await copyLargeObjects(snapshot.session, session, { ledger, snapshot: snapshot.fingerprint, removeOthers: true, signal });
  return { tables: new Set(unlogged.map(tableKey)).size, rows, objects, bytes };
}

async function encodingOf(session: Session): Promise<string> {
  return (await session.one<{ encoding: string }>(`select pg_catalog.current_setting('server_encoding') as encoding`)).encoding;
}
