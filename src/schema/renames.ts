import { relationPlaces, routinesMentioning, type MentioningRoutineRow, type RelationPlaceRow } from '../catalog/relation-places.ts';
import { PgweaveError, errorMessage, usageError } from '../core/errors.ts';
import type { Emit } from '../core/events.ts';
import { tableKey, type TableRef } from '../core/tables.ts';
import { displayName, qualifiedName, quoteIdent } from '../pg/identifiers.ts';
import type { Session } from '../pg/session.ts';
import { isConnectionLoss, sqlstateOf } from '../pg/sqlstate.ts';

/** A table that has another schema or name on the target. */
export interface Rename {
  readonly from: TableRef;
  readonly to: TableRef;
}

/** Names that tables bear while they are renamed, so that two can change places. */
const interim = (i: number) => quoteIdent(`pgweave_renamed_${i}`);

/**
 * Gives tables their names on the target, all in one transaction with what `record` writes. PostgreSQL itself carries along what belongs to a table (indexes, constraints, owned sequences)
 * and what names it (views, foreign keys, policies, triggers, parsed function bodies). Without `record` it is only tried and rolled back.
 */
export async function renameTables(target: Session, renames: readonly Rename[], record: (() => Promise<void>) | undefined): Promise<void> {
  if (renames.length === 0) return;
  try {
    await target.query('begin');
    await silenceTriggers(target);
    const there = new Set((await target.query<{ name: string }>('select nspname::text as name from pg_catalog.pg_namespace')).map((row) => row.name));
    for (const schema of new Set(renames.map((r) => r.to.schema))) if (!there.has(schema)) await target.query(`create schema ${quoteIdent(schema)}`);
    for (const [i, { from }] of renames.entries()) await target.query(`alter table ${qualifiedName(from.schema, from.name)} rename to ${interim(i)}`);
    for (const [i, { from, to }] of renames.entries()) if (from.schema !== to.schema) await target.query(`alter table ${quoteIdent(from.schema)}.${interim(i)} set schema ${quoteIdent(to.schema)}`);
    for (const [i, { to }] of renames.entries()) await target.query(`alter table ${quoteIdent(to.schema)}.${interim(i)} rename to ${quoteIdent(to.name)}`);
    await record?.();
    await target.query(record ? 'commit' : 'rollback');
  } catch (error) {
    if (isConnectionLoss(error) || sqlstateOf(error) === undefined) throw error;
    await target.query('rollback');
    throw new PgweaveError('rename-failed', `tables cannot get their names of --map on the target: ${errorMessage(error)}`, { hint: 'Free the name there, or grant what is missing (the owner\'s role, CREATE on the schema); then run the same command again.', cause: error });
  }
}

/** Event triggers of the source are on the target already and are not meant for our ALTER TABLE. Without the privilege they run. */
async function silenceTriggers(target: Session): Promise<void> {
  await target.query('savepoint silent');
  await target.query('set local session_replication_role = replica').catch(async (error: unknown) => {
    if (isConnectionLoss(error)) throw error;
    await target.query('rollback to savepoint silent');
  });
}

/**
 * Throws `names-clash` where a table that moves, or an index or sequence that goes with it, would meet a name that is taken in its new schema: by what the job makes there, or by what the target has.
 * Found before anything is copied; tables of the target with such a name are refused or dropped like all others that stand in the way. `taken`: whether a table belongs to the job.
 */
export async function refuseClashes(source: Session, target: Session, renames: readonly Rename[], taken: (table: TableRef) => boolean): Promise<void> {
  if (renames.length === 0) return;
  const to = new Map(renames.map((r) => [tableKey(r.from), r.to]));
  const finals = new Map<string, string>();
  // What belongs to a table that bears a wanted name goes with that table, or keeps the job from beginning.
  const wanted = new Set(renames.map((r) => tableKey(r.to)));
  const ofWanted = (row: RelationPlaceRow) => row.table_schema !== null && row.table_name !== null && wanted.has(tableKey({ schema: row.table_schema, name: row.table_name }));
  const foreign = new Set((await target.query<RelationPlaceRow>(relationPlaces())).filter((row) => row.kind !== 'relation' && !ofWanted(row)).map(tableKey));
  const places = (await source.query<RelationPlaceRow>(relationPlaces())).map((row) => ({ row, table: row.table_schema === null || row.table_name === null ? undefined : { schema: row.table_schema, name: row.table_name } }));
  const moves = (table: TableRef | undefined) => table !== undefined && to.has(tableKey(table));
  // What stays has its name first: the message then speaks of what moves.
  for (const { row, table } of [...places.filter((p) => !moves(p.table)), ...places.filter((p) => moves(p.table))]) {
    if (table && !taken(table)) continue;
    const renamed = table && to.get(tableKey(table));
    const final = renamed === undefined ? row : row.kind === 'relation' ? renamed : { schema: renamed.schema, name: row.name };
    const key = tableKey(final);
    const before = displayName(row.schema, row.name);
    const other = finals.get(key) ?? (renamed && final.schema !== row.schema && foreign.has(key) ? 'one that the target has' : undefined);
    if (other !== undefined) throw usageError(`--map: ${row.kind} ${before} would become ${displayName(final.schema, final.name)}, and so would ${other}`, row.kind === 'relation' ? 'Choose another name with --map.' : `Rename one of the two on the source (ALTER ${row.kind.toUpperCase()} … RENAME TO), or map the table to another schema.`);
    finals.set(key, before);
  }
}

/** Says which functions speak of a renamed table in their text, which nobody changes for them. */
export async function warnOfTexts(target: Session, renames: readonly Rename[], emit: Emit): Promise<void> {
  const words = [...new Set(renames.map((r) => r.from.name))];
  if (words.length === 0) return;
  const routines = await target.query<MentioningRoutineRow>(routinesMentioning(words));
  if (routines.length === 0) return;
  const names = [...new Set(routines.map((r) => displayName(r.schema, r.name)))];
  emit({ type: 'warning', code: 'old-name-in-function', message: `${names.slice(0, 5).join(', ')}${names.length > 5 ? ` and ${names.length - 5} more functions` : ''} may speak of a renamed table by its old name`, hint: 'The text of a function is not changed. Look at it on the target, and CREATE OR REPLACE it where it must use the new name.' });
}
