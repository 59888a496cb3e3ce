import { quoteLiteral } from '../../pg/identifiers.ts';
import { formatLsn, parseLsn, type Lsn } from '../../pg/lsn.ts';
import type { Pipeline } from '../../pg/pipeline.ts';
import type { Session } from '../../pg/session.ts';
import type { TableRef } from '../../core/tables.ts';
import type { Relation, Tuple } from '../../pgoutput/messages.ts';
import { scanTuple } from '../../pgoutput/tuple.ts';
import type { RowChange } from './merge.ts';
import { copyHeader, copyTrailer, copyUint16, copyUint32, copyValue } from './copy-rows.ts';

/**
 * Changes of a table that cannot take them now, kept in `pgweave.parked_changes` on the target, in order, so that the others go on and nothing is lost [hard case 39].
 * A row holds changes of one source transaction to one table (a large transaction has several). Bytes:
 *
 *   int32 length, JSON of the relation                then, for each change:
 *   'I' tuple | 'D' old kind, tuple | 'U' old kind or '-', [tuple], tuple | 'T' int8 restart identity
 *   old kind: 'K' or 'O'         tuple: int32 length, TupleData as pgoutput sends it (with its column count)
 */
export type ParkedChange = RowChange | { readonly type: 'truncate'; readonly relation: Relation; readonly restartIdentity: boolean };

export interface ParkedRow {
  readonly id: bigint;
  readonly commitLsn: Lsn;
  readonly changes: readonly ParkedChange[];
}

/** Bytes of one row of the table; more are spread over several. */
const rowBytes = 1_000_000;

/** Gathers changes of one table in one source transaction. */
export class ParkedBuffer {
  readonly table: TableRef;
  readonly commitLsn: Lsn;
  readonly commitTime: bigint;
  readonly #done: { bytes: Buffer; count: number }[] = [];
  #relation: Relation | undefined;
  #parts: Buffer[] = [];
  #bytes = 0;
  #count = 0;

  constructor(table: TableRef, commitLsn: Lsn, commitTime: bigint) {
    this.table = table;
    this.commitLsn = commitLsn;
    this.commitTime = commitTime;
  }

  add(change: ParkedChange): void {
    if (change.relation !== this.#relation || this.#bytes > rowBytes) this.#next(change.relation);
    switch (change.type) {
      case 'insert':
        this.#push(Buffer.from('I'), ...tupleParts(change.newTuple));
        break;
      case 'delete':
        this.#push(Buffer.from(change.oldKind === 'key' ? 'DK' : 'DO'), ...tupleParts(change.oldTuple));
        break;
      case 'update':
        this.#push(Buffer.from(change.oldTuple === undefined ? 'U-' : change.oldKind === 'key' ? 'UK' : 'UO'), ...(change.oldTuple ? tupleParts(change.oldTuple) : []), ...tupleParts(change.newTuple));
        break;
      case 'truncate':
        this.#push(Buffer.from([0x54, change.restartIdentity ? 1 : 0]));
        break;
      default:
        change satisfies never;
    }
    this.#count += 1;
  }

  /** Rows for {@link copyParked}. */
  rows(): readonly { readonly bytes: Buffer; readonly count: number }[] {
    this.#end();
    return this.#done;
  }

  #next(relation: Relation): void {
    this.#end();
    this.#relation = relation;
    const json = Buffer.from(JSON.stringify(relation));
    const length = Buffer.alloc(4);
    length.writeUInt32BE(json.length);
    this.#push(length, json);
  }

  #end(): void {
    if (this.#count > 0) this.#done.push({ bytes: Buffer.concat(this.#parts), count: this.#count });
    this.#parts = [];
    this.#bytes = 0;
    this.#count = 0;
    this.#relation = undefined;
  }

  #push(...parts: readonly Buffer[]): void {
    for (const part of parts) {
      this.#parts.push(part);
      this.#bytes += part.length;
    }
  }
}

function tupleParts(tuple: Tuple): Buffer[] {
  const head = Buffer.alloc(6);
  head.writeUInt32BE(tuple.end - tuple.start + 2, 0);
  head.writeUInt16BE(tuple.count, 4);
  return [head, tuple.bytes.subarray(tuple.start, tuple.end)];
}

export const copyParkedSql = 'copy pgweave.parked_changes (job, schema_name, table_name, commit_lsn, commit_time, change_count, changes) from stdin (format binary)';

/** Writes rows of {@link copyParkedSql}. */
export function copyParked(pipeline: Pipeline, job: string, buffers: Iterable<ParkedBuffer>): void {
  copyHeader(pipeline, true);
  const jobBytes = Buffer.from(job);
  for (const buffer of buffers) {
    const schema = Buffer.from(buffer.table.schema);
    const name = Buffer.from(buffer.table.name);
    for (const { bytes, count } of buffer.rows()) {
      copyUint16(pipeline, 7);
      for (const text of [jobBytes, schema, name]) {
        copyUint32(pipeline, text.length);
        copyValue(pipeline, text, 0, text.length);
      }
      for (const long of [buffer.commitLsn as bigint, buffer.commitTime]) {
        copyUint32(pipeline, 8);
        copyUint32(pipeline, Number(BigInt.asUintN(64, long) >> 32n));
        copyUint32(pipeline, Number(long & 0xffffffffn));
      }
      copyUint32(pipeline, 4);
      copyUint32(pipeline, count);
      copyUint32(pipeline, bytes.length);
      copyValue(pipeline, bytes, 0, bytes.length);
    }
  }
  copyTrailer(pipeline, true);
}

/** Decodes one row's bytes. `intern` keeps one Relation object for equal descriptions, so that plans can be kept by it. */
export function decodeParked(bytes: Buffer, intern: Map<string, Relation>): ParkedChange[] {
  const jsonLength = bytes.readUInt32BE(0);
  const json = bytes.toString('utf8', 4, 4 + jsonLength);
  let relation = intern.get(json);
  if (!relation) {
    relation = JSON.parse(json) as Relation;
    intern.set(json, relation);
  }
  const changes: ParkedChange[] = [];
  let at = 4 + jsonLength;
  const tuple = (): Tuple => {
    const length = bytes.readUInt32BE(at);
    const result = scanTuple(bytes, at + 4, at + 4 + length, at);
    at += 4 + length;
    return result;
  };
  while (at < bytes.length) {
    const kind = bytes[at]!;
    const flag = bytes[at + 1]!;
    if (kind === 0x49) {
      at += 1;
      changes.push({ type: 'insert', relation, newTuple: tuple() });
      continue;
    }
    at += 2;
    const oldKind = flag === 0x4b ? 'key' : 'full';
    if (kind === 0x44) changes.push({ type: 'delete', relation, oldKind, oldTuple: tuple() });
    else if (kind === 0x55) {
      const oldTuple = flag === 0x2d ? undefined : tuple();
      changes.push({ type: 'update', relation, oldKind: oldTuple ? oldKind : undefined, oldTuple, newTuple: tuple() });
    } else if (kind === 0x54) changes.push({ type: 'truncate', relation, restartIdentity: flag === 1 });
    else throw new RangeError(`parked changes hold an unknown kind ${kind}`);
  }
  return changes;
}

/** The oldest parked rows of a table, up to about `maxBytes`, at least one. */
export async function readParked(session: Session, job: string, table: TableRef, maxBytes: number, intern: Map<string, Relation>): Promise<ParkedRow[]> {
  const rows = await session.query<{ id: bigint; commit_lsn: string; changes: string }>(
    `select id, commit_lsn::text, pg_catalog.encode(changes, 'hex') as changes from (
       select id, commit_lsn, changes, pg_catalog.sum(pg_catalog.octet_length(changes)) over (order by id) - pg_catalog.octet_length(changes) as before
       from (select id, commit_lsn, changes from pgweave.parked_changes where job = $1 and schema_name = $2 and table_name = $3 order by id limit 1000) as oldest) as p
     where before < $4 order by id`,
    [job, table.schema, table.name, maxBytes],
  );
  return rows.map((row) => ({ id: row.id, commitLsn: parseLsn(row.commit_lsn), changes: decodeParked(Buffer.from(row.changes, 'hex'), intern) }));
}

/** How many changes wait for each table of a job, by schema and name. */
export async function countParked(session: Session, job: string): Promise<{ schema: string; name: string; changes: bigint; from: Lsn }[]> {
  const rows = await session.query<{ schema_name: string; table_name: string; changes: bigint; first: string }>(
    `select schema_name, table_name, pg_catalog.sum(change_count)::pg_catalog.int8 as changes, pg_catalog.min(commit_lsn)::text as first from pgweave.parked_changes where job = $1 group by 1, 2`, [job],
  );
  return rows.map((row) => ({ schema: row.schema_name, name: row.table_name, changes: row.changes, from: parseLsn(row.first) }));
}

/** Statement that deletes rows that were applied. */
export function deleteParkedSql(ids: readonly bigint[]): string {
  return `delete from pgweave.parked_changes where id in (${ids.join(', ')})`;
}

/** Drops parked changes of transactions below a table's snapshot: they are in its rows. Returns how many rows went. */
export function dropParkedBelow(session: Session, job: string, table: TableRef, lsn: Lsn): Promise<number> {
  return session.execute('delete from pgweave.parked_changes where job = $1 and schema_name = $2 and table_name = $3 and commit_lsn < $4', [job, table.schema, table.name, formatLsn(lsn)]);
}

/** Drops the parked changes of the first transaction that waits; its commit LSN, or undefined where nothing waits. */
export async function skipFirstParked(session: Session, job: string, table: TableRef): Promise<Lsn | undefined> {
  const rows = await session.query<{ commit_lsn: string }>(
    `delete from pgweave.parked_changes p where job = $1 and schema_name = $2 and table_name = $3 and commit_lsn = (
       select commit_lsn from pgweave.parked_changes q where q.job = $1 and q.schema_name = $2 and q.table_name = $3 order by q.id limit 1) returning commit_lsn::text`,
    [job, table.schema, table.name],
  );
  return rows[0] && parseLsn(rows[0].commit_lsn);
}

/** For SQL text outside parameters. */
export function parkedWhere(job: string, table: TableRef): string {
  return `job = ${quoteLiteral(job)} and schema_name = ${quoteLiteral(table.schema)} and table_name = ${quoteLiteral(table.name)}`;
}
