import { throwIfAborted } from '../core/abort.ts';
import { failpoint } from '../core/failpoints.ts';
import type { Session } from '../pg/session.ts';
import type { CopyLedger } from './copy-ledger.ts';

export interface LargeObjectsOptions {
  readonly ledger: CopyLedger;
  /** The snapshot's fingerprint: batches of the same one are not copied again. */
  readonly snapshot: string;
  /** Removes objects of the target that the source no longer has: for a second copy under the lock. */
  readonly removeOthers?: boolean;
  readonly signal?: AbortSignal | undefined;
}

/** Each object takes a lock until its transaction ends (max_locks_per_transaction is 64 by default, times the connections). */
const objectsPerBatch = 200;
/** Bytes per call: as text in hexadecimal twice that, far below the 1 GB that a value may have. */
const pieceBytes = 4 * 1024 * 1024;
/** Objects up to this size come several in one query. */
const smallBytes = 256 * 1024;

/**
 * Copies large objects with their object ids, as `source`, which stands in the snapshot, shows them [hard case 10]. Logical replication does not carry them. Owners and
 * privileges are the schema's affair (schema/large-objects.ts). Returns how many were copied now; a rerun in an equal snapshot goes on behind the last batch.
 */
export async function copyLargeObjects(source: Session, target: Session, options: LargeObjectsOptions): Promise<{ objects: number; bytes: number }> {
  const { ledger, signal } = options;
  const before = ledger.stepNote('large-objects');
  const [snapshot, last] = before?.split(' ') ?? [];
  let after = snapshot === options.snapshot ? Number(last) : 0;
  let objects = 0;
  let bytes = 0;
  for (;;) {
    throwIfAborted(signal);
    const batch = await source.query<{ oid: number }>('select oid from pg_catalog.pg_largeobject_metadata where oid > $1 order by oid limit $2', [after, objectsPerBatch]);
    if (batch.length === 0) break;
    const oids = batch.map((row) => row.oid);
    await target.transaction(async () => {
      await target.query('select pg_catalog.lo_unlink(m.oid) from pg_catalog.pg_largeobject_metadata m where m.oid = any($1::oid[])', [oids]);
      bytes += await copyBatch(source, target, oids, signal);
      await ledger.markStep(target, 'large-objects', `${options.snapshot} ${oids.at(-1)}`);
      await failpoint('copy.large-objects');
    });
    objects += oids.length;
    after = oids.at(-1)!;
  }
  if (options.removeOthers) await removeOthers(source, target);
  return { objects, bytes };
}

async function copyBatch(source: Session, target: Session, oids: readonly number[], signal: AbortSignal | undefined): Promise<number> {
  let bytes = 0;
  // lo_get of one byte more than a small object may have tells small from large without reading sizes of all.
  const rows = await source.query<{ oid: number; head: string }>(`select o as oid, pg_catalog.lo_get(o, 0, ${smallBytes + 1}) as head from pg_catalog.unnest($1::oid[]) as u(o)`, [oids]);
  for (const { oid, head } of rows) {
    throwIfAborted(signal);
    const size = (head.length - 2) / 2;
    if (size <= smallBytes) {
      await target.query('select pg_catalog.lo_from_bytea($1::oid, $2::bytea)', [oid, head]);
      bytes += size;
      continue;
    }
    await target.query('select pg_catalog.lo_create($1::oid)', [oid]);
    for (let offset = 0; ; offset += pieceBytes) {
      throwIfAborted(signal);
      const { piece } = await source.one<{ piece: string }>('select pg_catalog.lo_get($1::oid, $2::int8, $3::int4) as piece', [oid, offset, pieceBytes]);
      const length = (piece.length - 2) / 2;
      if (length > 0) await target.query('select pg_catalog.lo_put($1::oid, $2::int8, $3::bytea)', [oid, offset, piece]);
      bytes += length;
      if (length < pieceBytes) break;
    }
  }
  return bytes;
}

async function removeOthers(source: Session, target: Session): Promise<void> {
  const there = await target.query<{ oid: number }>('select oid from pg_catalog.pg_largeobject_metadata');
  for (let at = 0; at < there.length; at += objectsPerBatch) {
    const oids = there.slice(at, at + objectsPerBatch).map((row) => row.oid);
    const gone = await source.query<{ oid: number }>('select o as oid from pg_catalog.unnest($1::oid[]) as u(o) where not exists (select 1 from pg_catalog.pg_largeobject_metadata m where m.oid = o)', [oids]);
    if (gone.length > 0) await target.query('select pg_catalog.lo_unlink(o) from pg_catalog.unnest($1::oid[]) as u(o)', [gone.map((row) => row.oid)]);
  }
}
