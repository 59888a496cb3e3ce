import { displayName, quoteLiteral } from '../../pg/identifiers.ts';
import { isSent, keyCondition, parameter, type RowFilter, type TablePlan } from './plan.ts';

/**
 * Statements for a table whose row filter the source does not apply (before version 15; columns outside the replica identity; functions of users). The filter is evaluated on the target over
 * the values that were sent, given as a row with the names, types and collations of the columns, and only `true` counts, as in the copy: a row that moves in is inserted, one that moves out
 * is deleted. Our own names begin with `pgweave_`; a filter holds no subquery and can see none of them.
 */

/** Which values of an updated row there are. */
export interface UpdateShape {
  /** Positions of values that the source did not send, since they are large and unchanged [hard case 3]. */
  readonly unchanged: ReadonlySet<number>;
  /** Positions of key columns whose value stays. */
  readonly staying: ReadonlySet<number>;
}

/** Parameters: the values that are sent. */
export function filteredInsertSql(plan: TablePlan, filter: RowFilter): string {
  const given = sentPositions(plan).map((i, n) => valueSql(plan, i, `${parameter(plan.columns[i]!, n + 1)}`));
  return `${insertInto(plan)} select ${plan.written.map((i) => plan.columns[i]!.quoted).join(', ')} from (select ${given.join(', ')}) as pgweave_row where ${filter.where}`;
}

/** Parameters: the new values that are sent, but for unchanged ones, then the old key. Counts only rows that moved in. */
export function filteredUpdateSql(plan: TablePlan, filter: RowFilter, { unchanged, staying }: UpdateShape): string {
  const sent = sentPositions(plan).filter((i) => !unchanged.has(i));
  const key = (alias: string) => keyCondition(plan, sent.length + 1, alias);
  const quoted = (i: number) => plan.columns[i]!.quoted;
  const given = sent.map((i, n) => valueSql(plan, i, parameter(plan.columns[i]!, n + 1)));
  // What was not sent and is read is the row's that is there.
  const kept = [...unchanged].filter((i) => isSent(plan.columns[i]!) && filter.columns.includes(plan.relation.columns[i]!.name));
  for (const i of kept) given.push(valueSql(plan, i, `case when exists (select from pgweave_old) then (select ${quoted(i)} from pgweave_old) else ${notSent(plan, i)} end`));
  const sets = sent.filter((i) => plan.columns[i]!.settable && !staying.has(i));
  const stays = sets.length === 0
    ? `select 1 from ${plan.nameOnly} as pgweave_t where ${key('pgweave_t.')} and exists (select from pgweave_new)`
    : `update ${plan.nameOnly} as pgweave_t set ${sets.map((i) => `${quoted(i)} = pgweave_new.${quoted(i)}`).join(', ')} from pgweave_new where ${key('pgweave_t.')} returning 1`;
  return [
    `with ${kept.length === 0 ? '' : `pgweave_old as materialized (select ${kept.map(quoted).join(', ')} from ${plan.nameOnly} as pgweave_t where ${key('pgweave_t.')}), `}`,
    `pgweave_new as materialized (select * from (select ${given.join(', ')}) as pgweave_row where ${filter.where}), `,
    `pgweave_out as (delete from ${plan.nameOnly} as pgweave_t where ${key('pgweave_t.')} and not exists (select from pgweave_new)), `,
    `pgweave_stays as (${stays}) `,
    `${insertInto(plan)} select ${plan.written.map((i) => (unchanged.has(i) ? `${notSent(plan, i)}` : `pgweave_new.${quoted(i)}`)).join(', ')} from pgweave_new where not exists (select from pgweave_stays)`,
  ].join('');
}

/** Why a table is paused whose row moved in without one of its values; undefined for any other error. */
export function notSentReason(message: string): string | undefined {
  return /pgweave: (.+: copy the table again)/s.exec(message)?.[1];
}

/** Positions whose values are parameters. */
export function sentPositions(plan: TablePlan): number[] {
  return plan.columns.flatMap((column, i) => (isSent(column) ? [i] : []));
}

function insertInto(plan: TablePlan): string {
  return plan.written.length === 0 ? `insert into ${plan.name}` : `insert into ${plan.name} (${plan.written.map((i) => plan.columns[i]!.quoted).join(', ')}) overriding system value`;
}

function valueSql(plan: TablePlan, i: number, value: string): string {
  const { quoted, target } = plan.columns[i]!;
  return `(${value})::${target.bareType}${target.collation === undefined ? '' : ` collate ${target.collation}`} as ${quoted}`;
}

/** A value that cannot be known: fails where it is evaluated, with a text that says why, and not before, since its function is volatile. */
function notSent(plan: TablePlan, i: number): string {
  const { relation } = plan;
  const text = `pgweave: a row moves into the row filter of ${displayName(relation.schema, relation.name)}, and the source did not send its value of ${relation.columns[i]!.name}, which is large and unchanged: copy the table again`;
  return `(pg_catalog.concat(${quoteLiteral(text)}, pg_catalog.left(pg_catalog.clock_timestamp()::pg_catalog.text, 0)))::pg_catalog.int4::pg_catalog.text::${plan.columns[i]!.target.bareType}`;
}
