import { relationNames, type RelationNameRow } from '../catalog/target-contents.ts';
import { tableKey, type TableRef } from '../core/tables.ts';
import { qualifiedName } from '../pg/identifiers.ts';
import type { Session } from '../pg/session.ts';
import type { SchemaPlan } from './plan.ts';

/** Relations of the target that bear a name of the plan, or one that a table of it gets later, with what kind they are there. */
export async function existingRelations(target: Session, plan: SchemaPlan, later: readonly TableRef[] = []): Promise<RelationNameRow[]> {
  const planned = new Set([...plan.relations, ...later].map(tableKey));
  return (await target.query<RelationNameRow>(relationNames())).filter((row) => planned.has(tableKey(row)));
}

/**
 * Drops what stands in the plan's way, with everything that rests on it: relations of the same name, then types, functions, operators and so on. Schemas, extensions and what
 * has other names stay. In one transaction. Returns how many relations were dropped.
 */
export async function dropExisting(target: Session, plan: SchemaPlan, existing: readonly RelationNameRow[]): Promise<number> {
  const others = [...plan.preData, ...plan.postData].flatMap((statement) => statement.drop ?? []).toReversed();
  await target.transaction(async () => {
    // Each IF EXISTS: what came before may have taken it along, and types in a function's name may be gone.
    for (const { kind, schema, name } of existing) await target.query(`drop ${kind} if exists ${qualifiedName(schema, name)} cascade`);
    for (const drop of others) await target.query(drop);
  });
  return existing.length;
}
