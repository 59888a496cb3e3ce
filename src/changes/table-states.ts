import type { TableState } from '../core/events.ts';
import { PgweaveError } from '../core/errors.ts';
import { tableKey, type TableRef } from '../core/tables.ts';
import { displayName, quoteLiteral } from '../pg/identifiers.ts';
import { formatLsn, parseLsn, type Lsn } from '../pg/lsn.ts';
import type { Session } from '../pg/session.ts';

/**
 * The life of a table, durable in `pgweave.table_state` on the target:
 *
 *   pending → copying → copied(lsn) → streaming ⇄ paused(reason, lsn)
 *                ↑__________________________|  (copied again)
 *
 * Who writes it: `planned`, `copy-started`, `copied`, `copy-again`: whoever copies (clone; `table --copy-again`), `copied` in the very transaction that holds the last rows.
 * `caught-up`, `failed`, `resumed`: the applier, in the transaction with the changes it speaks of.
 *
 * `copiedLsn` stays for good: the LSN of the snapshot in which the rows were read (a slot's consistent point). A source transaction whose commit record begins below it
 * is in the rows already and is skipped for this table; from it on changes apply (as PostgreSQL's `should_apply_changes_for_rel`: `statelsn <= remote_final_lsn`).
 * While a table is neither `copied` nor `streaming` its changes are parked on the target in order, so that nothing is lost and the others go on.
 */
export type TableEvent =
  | { readonly type: 'planned' }
  | { readonly type: 'copy-started' }
  /** `lsn` undefined: a plain clone without a stream. */
  | { readonly type: 'copied'; readonly lsn: Lsn | undefined }
  /** The stream has passed the snapshot, or the parked changes are all applied. */
  | { readonly type: 'caught-up' }
  /** `lsn`: start of the commit record of the first source transaction that is not applied to this table. */
  | { readonly type: 'failed'; readonly reason: string; readonly lsn: Lsn | undefined; readonly rowKey?: string | undefined; readonly sqlstate?: string | undefined }
  | { readonly type: 'resumed' }
  | { readonly type: 'copy-again' };

export interface TableRecord extends TableRef {
  readonly state: TableState;
  readonly copiedLsn: Lsn | undefined;
  /** Where paused: start of the commit record of the first transaction that is not applied here. */
  readonly pausedLsn: Lsn | undefined;
  /** Where paused: key of the row that failed, as text such as `id=17`. */
  readonly rowKey: string | undefined;
  readonly sqlstate: string | undefined;
}

/** The state after an event. Throws `table-state` where the event cannot happen in this state. */
export function next(state: TableState, event: TableEvent): TableState {
  switch (event.type) {
    case 'planned':
      // A rerun plans the same tables again and must not undo what is done.
      return state;
    case 'copy-started':
      if (state.name === 'pending' || state.name === 'copying') return { name: 'copying' };
      break;
    case 'copied':
      if (state.name === 'copying' || state.name === 'pending') return { name: 'copied', lsn: event.lsn === undefined ? null : formatLsn(event.lsn) };
      break;
    case 'caught-up':
      if (state.name === 'copied' || state.name === 'streaming') return { name: 'streaming' };
      break;
    case 'failed':
      return { name: 'paused', reason: event.reason, lsn: event.lsn === undefined ? null : formatLsn(event.lsn) };
    case 'resumed':
      if (state.name === 'paused' || state.name === 'streaming') return { name: 'streaming' };
      break;
    case 'copy-again':
      return { name: 'pending' };
    default:
      event satisfies never;
  }
  throw new PgweaveError('table-state', `a table that is ${state.name} cannot become ${event.type}`, { retry: 'never' });
}

interface Row {
  schema_name: string;
  table_name: string;
  state: TableState['name'];
  copied_lsn: string | null;
  paused_lsn: string | null;
  reason: string | null;
  row_key: string | null;
  sqlstate: string | null;
}

const columns = 'schema_name, table_name, state, copied_lsn::text, paused_lsn::text, reason, row_key, sqlstate';

function toRecord(row: Row): TableRecord {
  return {
    schema: row.schema_name, name: row.table_name, state: toState(row), copiedLsn: row.copied_lsn === null ? undefined : parseLsn(row.copied_lsn), pausedLsn: row.paused_lsn === null ? undefined : parseLsn(row.paused_lsn),
    rowKey: row.row_key ?? undefined, sqlstate: row.sqlstate ?? undefined,
  };
}

function toState(row: Row): TableState {
  switch (row.state) {
    case 'copied': return { name: 'copied', lsn: row.copied_lsn };
    case 'paused': return { name: 'paused', reason: row.reason ?? '', lsn: row.paused_lsn };
    default: return { name: row.state };
  }
}

/** All tables of a job, ordered by name. */
export async function readTableStates(session: Session, job: string): Promise<TableRecord[]> {
  return (await session.query<Row>(`select ${columns} from pgweave.table_state where job = $1 order by schema_name collate "C", table_name collate "C"`, [job])).map(toRecord);
}

/** The same by {@link tableKey}. */
export async function readTableStateMap(session: Session, job: string): Promise<Map<string, TableRecord>> {
  return new Map((await readTableStates(session, job)).map((record) => [tableKey(record), record]));
}

/** One table; undefined where the job does not know it. */
export async function readTableState(session: Session, job: string, table: TableRef): Promise<TableRecord | undefined> {
  const [row] = await session.query<Row>(`select ${columns} from pgweave.table_state where job = $1 and schema_name = $2 and table_name = $3`, [job, table.schema, table.name]);
  return row && toRecord(row);
}

/** Adds tables as `pending`; those that are there stay as they are. */
export async function planTables(session: Session, job: string, tables: readonly TableRef[]): Promise<void> {
  if (tables.length === 0) return;
  await session.query(
    `insert into pgweave.table_state (job, schema_name, table_name, state) select $1, s, t, 'pending' from rows from (pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[])) as u(s, t) on conflict do nothing`,
    [job, tables.map((t) => t.schema), tables.map((t) => t.name)],
  );
}

/**
 * Brings one table forward and returns its record. Runs in the caller's transaction where there is one. An unknown table counts as `pending` and is added.
 * Throws `table-state` where the event cannot happen in the state it is in.
 */
export async function recordTableEvent(session: Session, job: string, table: TableRef, event: TableEvent): Promise<TableRecord> {
  await planTables(session, job, [table]);
  const [row] = await session.query<Row>(`select ${columns} from pgweave.table_state where job = $1 and schema_name = $2 and table_name = $3 for update`, [job, table.schema, table.name]);
  const before = toRecord(row!);
  let state: TableState;
  try {
    state = next(before.state, event);
  } catch (error) {
    throw new PgweaveError('table-state', `${displayName(table.schema, table.name)}: ${(error as Error).message}`, { retry: 'never', cause: error });
  }
  const after = afterEvent(before, state, event);
  await session.query(
    `update pgweave.table_state set state = $4, copied_lsn = $5, paused_lsn = $6, reason = $7, row_key = $8, sqlstate = $9,
       since = case when state = $4 then since else pg_catalog.clock_timestamp() end where job = $1 and schema_name = $2 and table_name = $3`,
    [
      job, table.schema, table.name, state.name, after.copiedLsn === undefined ? null : formatLsn(after.copiedLsn), after.pausedLsn === undefined ? null : formatLsn(after.pausedLsn),
      state.name === 'paused' ? state.reason : null, after.rowKey ?? null, after.sqlstate ?? null,
    ],
  );
  return after;
}

/**
 * The event `copied` as plain SQL, for the transaction that holds a table's last rows on a connection that takes no parameters. A table that streams already is left as it
 * is: a copy that ends twice, after a crash between its commit and its report, changes nothing.
 */
export function copiedSql(job: string, table: TableRef, lsn: Lsn | undefined): string {
  const literal = (text: string) => quoteLiteral(text).trim();
  const at = lsn === undefined ? 'null' : `${literal(formatLsn(lsn))}::pg_catalog.pg_lsn`;
  return `insert into pgweave.table_state as t (job, schema_name, table_name, state, copied_lsn) values (${literal(job)}, ${literal(table.schema)}, ${literal(table.name)}, 'copied', ${at})
    on conflict (job, schema_name, table_name) do update set state = 'copied', copied_lsn = excluded.copied_lsn, since = pg_catalog.clock_timestamp() where t.state in ('pending', 'copying')`;
}

/** The record after an event, by the rules of {@link next}. */
export function afterEvent(before: TableRecord, state: TableState, event: TableEvent): TableRecord {
  const copiedLsn = event.type === 'copied' ? event.lsn : event.type === 'copy-again' ? undefined : before.copiedLsn;
  const failed = event.type === 'failed' ? event : undefined;
  return { schema: before.schema, name: before.name, state, copiedLsn, pausedLsn: failed?.lsn, rowKey: failed?.rowKey, sqlstate: failed?.sqlstate };
}

/** Takes a table out of the job, with its parked changes. */
export async function removeTableState(session: Session, job: string, table: TableRef): Promise<void> {
  await session.query('delete from pgweave.parked_changes where job = $1 and schema_name = $2 and table_name = $3', [job, table.schema, table.name]);
  await session.query('delete from pgweave.table_state where job = $1 and schema_name = $2 and table_name = $3', [job, table.schema, table.name]);
}

/** The record as one statement without parameters, for a transaction that is sent ahead of its answers. */
export function tableRecordSql(job: string, record: TableRecord): string {
  const text = (value: string | undefined) => (value === undefined ? 'null' : quoteLiteral(value.replaceAll('\0', '')));
  const lsn = (value: Lsn | undefined) => (value === undefined ? 'null' : quoteLiteral(formatLsn(value)));
  const { state } = record;
  return `insert into pgweave.table_state (job, schema_name, table_name, state, copied_lsn, paused_lsn, reason, row_key, sqlstate)
    values (${quoteLiteral(job)}, ${quoteLiteral(record.schema)}, ${quoteLiteral(record.name)}, '${state.name}', ${lsn(record.copiedLsn)}, ${lsn(record.pausedLsn)}, ${state.name === 'paused' ? text(state.reason) : 'null'}, ${text(record.rowKey)}, ${text(record.sqlstate)})
    on conflict (job, schema_name, table_name) do update set state = excluded.state, copied_lsn = excluded.copied_lsn, paused_lsn = excluded.paused_lsn, reason = excluded.reason, row_key = excluded.row_key, sqlstate = excluded.sqlstate,
      since = case when table_state.state = excluded.state then table_state.since else pg_catalog.clock_timestamp() end`;
}
