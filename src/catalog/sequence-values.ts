import type { TableRef } from '../core/tables.ts';
import { qualifiedName } from '../pg/identifiers.ts';
import type { Session } from '../pg/session.ts';
import { userSequences, type SequenceRow } from './sequences.ts';

export interface SequenceValue {
  readonly schema: string;
  readonly name: string;
  readonly increment: bigint;
  readonly min: bigint;
  readonly max: bigint;
  readonly cycles: boolean;
  readonly lastValue: bigint;
  /** False where `lastValue` itself comes next. */
  readonly isCalled: boolean;
  /** The table whose column it serves, by OWNED BY or as identity; null for one that stands alone. */
  readonly ownedBy: TableRef | null;
}

/** Every sequence of users with its value, sorted by name. Needs SELECT on each. */
export async function readSequenceValues(session: Session): Promise<SequenceValue[]> {
  const rows = await session.query<SequenceRow>(userSequences());
  const out: SequenceValue[] = [];
  // A value stands in the sequence's own relation. Some hundred at a time keeps statements short.
  for (let at = 0; at < rows.length; at += 200) {
    const part = rows.slice(at, at + 200);
    const values = await session.query<{ i: number; last_value: bigint; is_called: boolean }>(`${part.map((r, i) => `select ${i} as i, last_value, is_called from ${qualifiedName(r.schema, r.name)}`).join(' union all ')} order by 1`);
    for (const value of values) {
      const r = part[value.i]!;
      out.push({
        schema: r.schema, name: r.name, increment: r.increment, min: r.minimum, max: r.maximum, cycles: r.cycle, lastValue: value.last_value, isCalled: value.is_called,
        ownedBy: r.table_schema === null || r.table_name === null ? null : { schema: r.table_schema, name: r.table_name },
      });
    }
  }
  return out;
}
