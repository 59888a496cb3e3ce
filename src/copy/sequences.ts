import { readSequenceValues, type SequenceValue } from '../catalog/sequence-values.ts';
import { tableKey, type TableRef } from '../core/tables.ts';
import { qualifiedName, quoteLiteral } from '../pg/identifiers.ts';
import type { Session } from '../pg/session.ts';

/** Sequences set in one statement. */
const batch = 100;

export interface CarryOptions {
  /** Steps of its own increment that each sequence goes ahead of the source. */
  readonly buffer?: bigint;
  /** The target's sequences get the very values that the source's have, also where they are further on: for a target that is just being made. */
  readonly exact?: boolean;
  /** Which sequences are carried; default all. Those owned by tables that the job leaves out should stay where they are. */
  readonly select?: (sequence: SequenceValue) => boolean;
  /** The sequence's name on the target; default the same. */
  readonly mapTo?: (sequence: SequenceValue) => TableRef;
}

export interface CarriedSequences {
  readonly set: readonly { readonly sequence: TableRef; readonly value: bigint; readonly isCalled: boolean }[];
  /** Further on the target than on the source: left as they are. */
  readonly ahead: readonly TableRef[];
  /** On the source, not on the target. */
  readonly missing: readonly TableRef[];
}

/**
 * Where the target's sequence is set to. Goes ahead by `buffer` increments, in the sequence's own direction, within its limits: where they would be passed, a cycling one
 * stays at its end and any other keeps the source's value.
 */
export function carriedValue(source: SequenceValue, buffer: bigint): { value: bigint; isCalled: boolean } {
  if (buffer === 0n) return { value: source.lastValue, isCalled: source.isCalled };
  const value = source.lastValue + buffer * source.increment;
  if (value <= source.max && value >= source.min) return { value, isCalled: source.isCalled };
  return source.cycles ? { value: source.increment > 0n ? source.max : source.min, isCalled: true } : { value: source.lastValue, isCalled: source.isCalled };
}

/** Whether `a` would hand out nothing that `b` has handed out already. A cycling sequence has no ahead. */
export function isAtOrPast(a: SequenceValue, b: Pick<SequenceValue, 'lastValue' | 'isCalled' | 'increment'>): boolean {
  const next = (s: Pick<SequenceValue, 'lastValue' | 'isCalled'>, increment: bigint) => (s.isCalled ? s.lastValue + increment : s.lastValue);
  const mine = next(a, a.increment);
  const theirs = next(b, a.increment);
  return a.increment > 0n ? mine >= theirs : mine <= theirs;
}

/** Reads every sequence of the source and sets the target's: owned and standing alone, ascending, descending, cycling, called or not. Unless `exact`, values never go back on the target. Sequences obey no snapshot: call it at the end, or under a lock. Can be run again. */
export async function carrySequences(source: Session, target: Session, options: CarryOptions = {}): Promise<CarriedSequences> {
  const from = (await readSequenceValues(source)).filter(options.select ?? (() => true));
  const there = new Map((await readSequenceValues(target)).map((s) => [tableKey(s), s]));
  const set: { sequence: TableRef; value: bigint; isCalled: boolean }[] = [];
  const ahead: TableRef[] = [];
  const missing: TableRef[] = [];
  for (const s of from) {
    const name = options.mapTo?.(s) ?? { schema: s.schema, name: s.name };
    const now = there.get(tableKey(name));
    const { value, isCalled } = carriedValue(s, options.buffer ?? 0n);
    if (!now) missing.push({ schema: s.schema, name: s.name });
    else if (!options.exact && !s.cycles && isAtOrPast(now, { lastValue: value, isCalled, increment: s.increment })) {
      // Equal counts as carried; what is further on stays.
      if (now.lastValue === value && now.isCalled === isCalled) set.push({ sequence: name, value, isCalled });
      else ahead.push(name);
    } else set.push({ sequence: name, value, isCalled });
  }
  await writeSequences(target, set.map((s) => ({ ...s.sequence, lastValue: s.value, isCalled: s.isCalled })));
  return { set, ahead, missing };
}

/** Not transactional on any server; running it again is harmless. */
async function writeSequences(target: Session, values: readonly (TableRef & Pick<SequenceValue, 'lastValue' | 'isCalled'>)[]): Promise<void> {
  for (let at = 0; at < values.length; at += batch) {
    const calls = values.slice(at, at + batch).map((v) => `pg_catalog.setval(${quoteLiteral(qualifiedName(v.schema, v.name))}::pg_catalog.regclass, ${v.lastValue}, ${v.isCalled})`);
    await target.query(`select ${calls.join(', ')}`);
  }
}
