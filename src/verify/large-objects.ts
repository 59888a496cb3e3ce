import type { Session } from '../pg/session.ts';
import type { LargeObjectReport } from './report.ts';
import type { SnapshotPool } from './snapshot-pool.ts';

const chunkBytes = 262_144;
const fetchRows = 2000;
const keep = 20;

/**
 * One row a large object: hashes of its chunks, summed. Read with lo_get, which takes holes for zeros as every reader does; pages on disk may be cut otherwise on the other
 * side. Needs SELECT on each object, as pg_dump does.
 */
const objectsSql = `
  select m.oid::pg_catalog.int8 as oid, coalesce(x.sum, 0) as sum, coalesce(x.bytes, 0) as bytes
    from pg_catalog.pg_largeobject_metadata m
    cross join lateral (
      with recursive c(at, data) as (
        select 0::pg_catalog.int8, pg_catalog.lo_get(m.oid, 0, ${chunkBytes})
        union all
        select c.at + ${chunkBytes}, pg_catalog.lo_get(m.oid, c.at + ${chunkBytes}, ${chunkBytes}) from c where pg_catalog.length(c.data) = ${chunkBytes})
      select pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.encode(c.data, 'hex') collate "C", c.at)) as sum, pg_catalog.sum(pg_catalog.length(c.data)) as bytes from c) x
   order by m.oid`;

interface Row {
  readonly oid: bigint;
  readonly sum: string;
  readonly bytes: bigint | string;
}

/** Compares all large objects by id and content. Errors of privilege are the caller's. */
export async function compareLargeObjects(source: SnapshotPool, target: SnapshotPool): Promise<LargeObjectReport> {
  return source.use((a) => target.use(async (b) => {
    const counts = { compared: 0, missing: 0, extra: 0, changed: 0 };
    const shown: { oid: number; kind: 'missing' | 'extra' | 'changed' }[] = [];
    const found = (oid: bigint, kind: 'missing' | 'extra' | 'changed') => {
      counts[kind] += 1;
      if (shown.length < keep) shown.push({ oid: Number(oid), kind });
    };
    const left = objects(a);
    const right = objects(b);
    let [x, y] = await Promise.all([left.next(), right.next()]);
    while (!x.done || !y.done) {
      const here = x.done ? undefined : x.value;
      const there = y.done ? undefined : y.value;
      const order = !here ? 1 : !there ? -1 : here.oid < there.oid ? -1 : here.oid > there.oid ? 1 : 0;
      counts.compared += 1;
      if (order < 0) found(here!.oid, 'missing');
      else if (order > 0) found(there!.oid, 'extra');
      else if (here!.sum !== there!.sum || String(here!.bytes) !== String(there!.bytes)) found(here!.oid, 'changed');
      if (order <= 0) x = await left.next();
      if (order >= 0) y = await right.next();
    }
    return { ...counts, shown };
  }));
}

async function* objects(session: Session): AsyncGenerator<Row, undefined> {
  await session.query(`declare pgweave_objects no scroll cursor for ${objectsSql}`);
  for (;;) {
    const rows = await session.query<Row>(`fetch ${fetchRows} from pgweave_objects`);
    yield* rows;
    if (rows.length < fetchRows) return undefined;
  }
}
