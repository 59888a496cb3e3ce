import { sequenceOnTarget } from '../catalog/sequences.ts';
import { verifySequences, type VerifySequenceRow } from '../catalog/verify-tables.ts';
import { tableKey, type TableRef } from '../core/tables.ts';
import { qualifiedName, quoteLiteral } from '../pg/identifiers.ts';
import type { Session } from '../pg/session.ts';
import type { SequenceReport } from './report.ts';

const perQuery = 200;

/** Compares where sequences stand: on the target at or past the source. Those of tables that are left out are not looked at, nor those that stand alone where `alone` is false. Owned ones are where `mapTo` puts their table: they move with it to another schema. */
export async function compareSequences(source: Session, target: Session, taken: (owner: TableRef) => boolean, alone: boolean, mapTo: (owner: TableRef) => TableRef = (owner) => owner): Promise<SequenceReport[]> {
  const here = (await source.query<VerifySequenceRow>(verifySequences())).filter((s) => (s.owner_schema === null || s.owner_table === null ? alone : taken({ schema: s.owner_schema, name: s.owner_table })));
  const there = new Set((await target.query<VerifySequenceRow>(verifySequences())).map(tableKey));
  const onTarget = (s: VerifySequenceRow) => sequenceOnTarget(s, s.owner_schema === null || s.owner_table === null ? null : { schema: s.owner_schema, name: s.owner_table }, mapTo);
  const common = here.filter((s) => there.has(tableKey(onTarget(s))));
  const [a, b] = await Promise.all([nextValues(source, common), nextValues(target, common.map(onTarget))]);
  const left = here.length > common.length ? await nextValues(source, here.filter((s) => !common.includes(s))) : new Map<string, Position>();
  return here.map((s): SequenceReport => {
    const key = tableKey(s);
    const from = a.get(key) ?? left.get(key)!;
    const to = b.get(tableKey(onTarget(s)));
    const base = { schema: s.schema, name: s.name, source: String(next(from, s.increment)) };
    if (!to) return { ...base, status: 'missing', target: null };
    const x = next(from, s.increment);
    const y = next(to, s.increment);
    const status = x === y ? 'equal' : s.cycle ? 'different' : (s.increment > 0n ? y > x : y < x) ? 'ahead' : 'behind';
    return { ...base, status, target: String(y) };
  });
}

interface Position {
  readonly last: bigint;
  readonly called: boolean;
}

function next(at: Position, increment: bigint): bigint {
  return at.called ? at.last + increment : at.last;
}

async function nextValues(session: Session, sequences: readonly TableRef[]): Promise<Map<string, Position>> {
  const out = new Map<string, Position>();
  for (let i = 0; i < sequences.length; i += perQuery) {
    const sql = sequences.slice(i, i + perQuery).map((s) => `select ${quoteLiteral(s.schema)}::text as schema, ${quoteLiteral(s.name)}::text as name, last_value as last, is_called as called from ${qualifiedName(s.schema, s.name)}`).join(' union all ');
    for (const row of await session.query<{ schema: string; name: string; last: bigint; called: boolean }>(sql)) out.set(tableKey(row), row);
  }
  return out;
}
