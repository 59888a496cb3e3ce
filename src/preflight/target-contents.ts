import { hasOwnSchema, relationNames, type RelationNameRow } from '../catalog/target-contents.ts';
import { tableKey } from '../core/tables.ts';
import { displayName } from '../pg/identifiers.ts';
import { advice, check, counted, flagFix, type Check } from './check.ts';
import type { CheckedServer, PreflightContext } from './context.ts';

/** Whether the target is empty, holds a job that has begun, or holds tables that are in the way. */
export async function targetContentsCheck(target: CheckedServer, context: PreflightContext): Promise<Check[]> {
  const relations = await target.session.query<RelationNameRow>(relationNames());
  const { present } = await target.session.one<{ present: boolean }>(hasOwnSchema());
  // While it is copied, a table has its own name on the target too.
  const wanted = new Set(context.tables.flatMap((t) => [tableKey(t.mapTo), tableKey(t)]));
  const clashing = relations.filter((r) => wanted.has(tableKey(r)));
  const facts = { relations: relations.length, clashing: clashing.map((r) => displayName(r.schema, r.name)), jobHasBegun: present };
  if (relations.length === 0) return [check('target-empty', 'target', 'ok', 'target is empty', { facts })];
  if (present) return [check('target-empty', 'target', 'ok', `target holds ${counted(relations.length, 'relation')} of a job that has begun: the same command goes on with it`, { facts })];
  const items = clashing.map((r) => ({ subject: displayName(r.schema, r.name), note: `${r.kind} of the same name` }));
  if (clashing.length > 0) {
    return [context.kind.dropExisting
      ? check('target-empty', 'target', 'warn', `${counted(clashing.length, 'table')} on the target will be dropped (--drop-existing)`, { facts, items })
      : check('target-empty', 'target', 'fail', `target is not empty: ${counted(clashing.length, 'table')} of the same name ${clashing.length === 1 ? 'is' : 'are'} there`, { facts, items, fix: [flagFix('--drop-existing (drops them first)'), advice('target', 'or name an empty database')] })];
  }
  return [check('target-empty', 'target', 'warn', `target is not empty: ${counted(relations.length, 'other relation')}, none of the names to be copied`, { facts, items: relations.map((r) => ({ subject: displayName(r.schema, r.name), note: r.kind })) })];
}
