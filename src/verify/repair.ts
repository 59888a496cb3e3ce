import { displayName, qualifiedName, quoteIdent } from '../pg/identifiers.ts';
import type { Session } from '../pg/session.ts';
import { sqlstate, sqlstateOf } from '../pg/sqlstate.ts';
import { PgweaveError } from '../core/errors.ts';
import { keysFrom, rowsByHashSql, rowsByKeySql, type HashOptions } from './checksum-sql.ts';
import { keyArrays } from './describe.ts';
import type { RowDifference } from './narrow.ts';
import type { RepairCounts } from './report.ts';
import type { Unit, VerifyColumn } from './unit.ts';

/** Whole rows are held for so many keys at a time. */
const keysPerQuery = 100;

/** A session that mends rows of the target: triggers and foreign keys keep still where the role may say so, and its changes bear an origin, so that no stream sends them back. */
export interface Mender extends AsyncDisposable {
  readonly session: Session;
  /** session_replication_role is replica. */
  readonly replica: boolean;
}

/** Makes a session a mender. `origin`: name of a replication origin for this purpose, made and dropped here. Closing it leaves the session open. */
export async function openMender(session: Session, origin: string): Promise<Mender> {
  const allowed = async (work: () => Promise<unknown>): Promise<boolean> => {
    try {
      await work();
      return true;
    } catch (error) {
      const state = sqlstateOf(error);
      // 53400: every origin that the server has room for is in use. 55006: another verification uses this one.
      if (state === sqlstate.insufficientPrivilege || state === '53400' || state === sqlstate.objectInUse) return false;
      throw error;
    }
  };
  const replica = await allowed(() => session.query('set session_replication_role = replica'));
  const marked = await allowed(async () => {
    await session.query('select pg_catalog.pg_replication_origin_create($1) where not exists (select 1 from pg_catalog.pg_replication_origin where roname = $1)', [origin]);
    await session.query('select pg_catalog.pg_replication_origin_session_setup($1)', [origin]);
  });
  return {
    session, replica,
    async [Symbol.asyncDispose]() {
      if (!marked || session.lost) return;
      await session.query('select pg_catalog.pg_replication_origin_session_reset()').catch(() => undefined);
      await session.query('select pg_catalog.pg_replication_origin_drop($1)', [origin]).catch(() => undefined);
    },
  };
}

/**
 * Makes rows of the target as they are on the source. `source` reads in the state that the target must have; the caller sees to it that nobody else changes these rows of
 * the target between (the follower is held, or the transaction is checked against the source before it commits). Runs in the caller's transaction on the target. Never writes to the source.
 */
export async function repairRows(unit: Unit, rows: readonly RowDifference[], source: Session, mender: Mender, hash: HashOptions): Promise<RepairCounts> {
  return unit.key ? repairKeyed(unit, rows, source, mender, hash) : repairKeyless(unit, rows, source, mender, hash);
}

type Row = Record<string, unknown>;

async function repairKeyed(unit: Unit, rows: readonly RowDifference[], source: Session, mender: Mender, hash: HashOptions): Promise<RepairCounts> {
  const unique = [...new Map(rows.map((row) => [JSON.stringify(row.key), row])).values()];
  const counts = { inserted: 0, updated: 0, deleted: 0 };
  const written = writableColumns(unit);
  // Rows leave before others come: two may have to swap a unique value.
  const waiting: { row: Row; existed: boolean }[] = [];
  for (let i = 0; i < unique.length; i += keysPerQuery) {
    const keys = keyArrays(unit, unique.slice(i, i + keysPerQuery));
    const wanted = await source.query<Row>(rowsByKeySql(unit, 'source', written, hash), keys);
    if (mender.replica && !unit.targetHasMore) {
      const gone = new Set((await mender.session.query<{ n: number }>(deleteByKeySql(unit), keys)).map((r) => r.n));
      for (const row of wanted) waiting.push({ row, existed: gone.has(row['n'] as number) });
      counts.deleted += gone.size;
    } else {
      // Foreign keys are alive, or a row has values that only the target has: what stays must be updated in place, what goes may be referenced by rows that go too.
      const there = new Set((await mender.session.query<{ n: number }>(rowsByKeySql(unit, 'target', [], hash), keys)).map((r) => r.n));
      const stays = new Set(wanted.map((row) => row['n'] as number));
      const leaving = keys.map((column) => column.filter((_, at) => !stays.has(at + 1)));
      if (leaving[0]!.length > 0) counts.deleted += (await mender.session.query(deleteByKeySql(unit), leaving)).length;
      for (const row of wanted) {
        if (!there.has(row['n'] as number)) waiting.push({ row, existed: false });
        else if (await updateRow(unit, written, row, mender.session)) counts.updated += 1;
      }
    }
  }
  const insert = insertSql(unit, written);
  for (const { row, existed } of waiting) {
    await mender.session.query(insert, written.map((_, i) => row[`x${i}`]));
    if (existed) {
      counts.updated += 1;
      counts.deleted -= 1;
    } else counts.inserted += 1;
  }
  return counts;
}

async function repairKeyless(unit: Unit, rows: readonly RowDifference[], source: Session, mender: Mender, hash: HashOptions): Promise<RepairCounts> {
  const counts = { inserted: 0, updated: 0, deleted: 0 };
  const written = writableColumns(unit);
  const of = (kind: RowDifference['kind']) => rows.filter((row) => row.kind === kind);
  const inBatches = (list: readonly RowDifference[]) => Array.from({ length: Math.ceil(list.length / keysPerQuery) }, (_, i) => list.slice(i * keysPerQuery, (i + 1) * keysPerQuery));
  for (const batch of inBatches(of('extra'))) {
    const left = new Map(batch.map((row) => [`${row.hash.h1} ${row.hash.h2}`, row.count]));
    const found = await mender.session.query<{ h1: bigint; h2: bigint; relation: bigint; ctid: string }>(rowsByHashSql(unit, 'target', batch.map((row) => row.hash), [], hash, undefined));
    for (const row of found) {
      const at = `${row.h1} ${row.h2}`;
      const count = left.get(at) ?? 0;
      if (count === 0) continue;
      left.set(at, count - 1);
      const { name } = await mender.session.one<{ name: string }>('select pg_catalog.format(\'%I.%I\', n.nspname, c.relname) as name from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = $1', [row.relation]);
      counts.deleted += await mender.session.execute(`delete from only ${name} as t where t.ctid = $1::pg_catalog.tid`, [row.ctid]);
    }
  }
  const insert = insertSql(unit, written);
  for (const batch of inBatches(of('missing'))) {
    const found = await source.query<Row>(rowsByHashSql(unit, 'source', batch.map((row) => row.hash), written, hash, 1));
    for (const row of batch) {
      const values = found.find((r) => r['h1'] === row.hash.h1 && r['h2'] === row.hash.h2);
      if (!values) throw new PgweaveError('repair-lost-row', `a row of ${displayName(unit.table.schema, unit.table.name)} that was to be repaired is no longer on the source`, { hint: 'Run verify again.', retry: 'manual' });
      for (let n = 0; n < row.count; n += 1) await mender.session.query(insert, written.map((_, i) => values[`x${i}`]));
      counts.inserted += row.count;
    }
  }
  return counts;
}

/** Columns that are written: those whose values arise on the target are not. */
function writableColumns(unit: Unit): VerifyColumn[] {
  return unit.columns.filter((c) => !c.generated);
}

/** Values come as text parameters without a type, so the column's own input function reads them. */
function insertSql(unit: Unit, columns: readonly VerifyColumn[]): string {
  const into = `insert into ${qualifiedName(unit.target.schema, unit.target.name)}`;
  if (columns.length === 0) return `${into} default values`;
  return `${into} (${columns.map((c) => quoteIdent(c.name)).join(', ')}) overriding system value values (${columns.map((_, i) => `$${i + 1}`).join(', ')})`;
}

function deleteByKeySql(unit: Unit): string {
  const key = unit.key!;
  const only = isPartitioned(unit) ? '' : 'only ';
  return `delete from ${only}${qualifiedName(unit.target.schema, unit.target.name)} as t using ${keysFrom(key.length)} with ordinality as u(${key.map((_, i) => `k${i}`).join(', ')}, n) where ${key.map((c, i) => `t.${quoteIdent(c.name)} = u.k${i}::${c.targetType}`).join(' and ')} returning u.n::pg_catalog.int4 as n`;
}

function isPartitioned(unit: Unit): boolean {
  const [first] = unit.targetRelations;
  return unit.targetRelations.length !== 1 || first!.schema !== unit.target.schema || first!.name !== unit.target.name;
}

/** Sets all columns that may be set; the key stays. Returns whether the row was there. */
async function updateRow(unit: Unit, columns: readonly VerifyColumn[], row: Row, session: Session): Promise<boolean> {
  const isKey = (c: VerifyColumn) => unit.key!.some((k) => k.name === c.name);
  const set = columns.map((c, i) => ({ c, value: row[`x${i}`] })).filter(({ c }) => !isKey(c) && !c.alwaysIdentity);
  if (set.length === 0) return false;
  const keys = unit.key!.map((k) => row[`x${columns.findIndex((c) => c.name === k.name)}`]);
  const sql = `update ${isPartitioned(unit) ? '' : 'only '}${qualifiedName(unit.target.schema, unit.target.name)} as t set ${set.map(({ c }, i) => `${quoteIdent(c.name)} = $${i + 1}`).join(', ')} where ${unit.key!.map((c, i) => `t.${quoteIdent(c.name)} = $${set.length + i + 1}`).join(' and ')}`;
  return (await session.execute(sql, [...set.map(({ value }) => value), ...keys])) > 0;
}
