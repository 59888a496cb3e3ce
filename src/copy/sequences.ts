import { readSequenceValues, type SequenceValue } from '../catalog/sequence-values.ts';
import type { TableRef } from '../core/tables.ts';
import { qualifiedName, quoteLiteral } from '../pg/identifiers.ts';
import type { Session } from '../pg/session.ts';

/** Sequences set in one statement. */
const batch = 100;

/** Sets sequences of the target. Not transactional on any server; running it again is harmless. */
export async function writeSequences(target: Session, values: readonly (TableRef & Pick<SequenceValue, 'lastValue' | 'isCalled'>)[]): Promise<void> {
  for (let at = 0; at < values.length; at += batch) {
    const calls = values.slice(at, at + batch).map((v) => `pg_catalog.setval(${quoteLiteral(qualifiedName(v.schema, v.name))}::pg_catalog.regclass, ${v.lastValue}, ${v.isCalled})`);
    await target.query(`select ${calls.join(', ')}`);
  }
}

/**
 * Gives the target's sequences the very values that the source's have at this moment: sequences do not obey snapshots, so call it at the end. Returns how many were set.
 */
export async function copySequences(source: Session, target: Session, include: (sequence: SequenceValue) => boolean = () => true): Promise<number> {
  const values = (await readSequenceValues(source)).filter(include);
  await writeSequences(target, values);
  return values.length;
}
