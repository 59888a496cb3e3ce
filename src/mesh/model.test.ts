import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { arrayText, isAlive, join, mergeInto, nothing, outranks, parseStamps, stateOfLine, sumDecimals, valuesOf, visibility, type JournalTable, type RowState, type Stamp } from './model.ts';

/** What a stamp wrote: one stamp never carries two contents, as in a mesh. */
const contentOf = (stamp: Stamp, name: string) => `${name}@${stamp}`;
const stamp = fc.bigInt({ min: 1n, max: 40n });

const state = (key: string): fc.Arbitrary<RowState> => fc.record({
  w: fc.bigInt({ min: 0n, max: 40n }), d: fc.bigInt({ min: 0n, max: 40n }), generation: fc.bigInt({ min: -1n, max: 3n }),
  registers: fc.dictionary(fc.constantFrom('a', 'b'), stamp), totals: fc.dictionary(fc.constantFrom('n', 'q'), fc.dictionary(fc.constantFrom('1', '2', '3'), stamp)),
}).map(({ w, d, generation, registers, totals }) => ({
  key, w, d, generation,
  row: w === 0n ? {} : { email: `e${w % 3n}`, id: key },
  registers: Object.fromEntries(Object.entries(registers).map(([name, s]) => [name, { stamp: s, value: contentOf(s, name) }])),
  counters: generation === -1n ? {} : Object.fromEntries(Object.entries(totals).map(([name, nodes]) => [name, Object.fromEntries(Object.entries(nodes).map(([node, s]) => [node, { stamp: s, total: String(s * (generation + 2n)) }]))])),
}));

describe('the join', () => {
  it('commutative', () => {
    fc.assert(fc.property(state('k'), state('k'), (a, b) => {
      expect(join(a, b)).toEqual(join(b, a));
    }), { numRuns: 2000 });
  });
  it('associative', () => {
    fc.assert(fc.property(state('k'), state('k'), state('k'), (a, b, c) => {
      expect(join(join(a, b), c)).toEqual(join(a, join(b, c)));
    }), { numRuns: 2000 });
  });
  it('idempotent, and nothing is its zero', () => {
    fc.assert(fc.property(state('k'), (a) => {
      expect(join(a, a)).toEqual(a);
      expect(join(a, { ...nothing('k'), generation: -1n })).toEqual(a);
    }), { numRuns: 1000 });
  });
  it('any order of delivery, any number of times, ends alike', () => {
    fc.assert(fc.property(fc.array(state('k'), { minLength: 1, maxLength: 6 }), fc.infiniteStream(fc.nat()), (changes, choices) => {
      const all = changes.reduce(join);
      const shuffled = [...changes, ...changes].map((c) => ({ c, at: choices.next().value })).sort((x, y) => x.at - y.at).map((x) => x.c);
      expect(shuffled.reduce(join)).toEqual(all);
    }), { numRuns: 1000 });
  });
  it('refuses two keys', () => {
    expect(() => join(nothing('a'), nothing('b'))).toThrow(RangeError);
  });
});

describe('what is visible', () => {
  const table = { byColumn: false, uniques: [['email']] };
  const rows = fc.array(fc.tuple(fc.constantFrom('1', '2', '3', '4', '5'), stamp, fc.boolean()), { maxLength: 12 });

  it('does not depend on the order of changes; no two visible rows share a unique key; the highest claim wins', () => {
    fc.assert(fc.property(rows, fc.infiniteStream(fc.nat()), (changes, choices) => {
      const states = changes.map(([key, s, dead]): RowState => (dead ? { ...nothing(key), d: s } : { ...nothing(key), w: s, row: { id: key, email: `e${s % 4n}` } }));
      const apply = (list: readonly RowState[]) => {
        const store = new Map<string, RowState>();
        for (const s of list) mergeInto(store, s);
        const { visible, hidden } = visibility(store.values(), table);
        return { visible: visible.map((s) => s.key).sort(), hidden: hidden.map((s) => s.key).sort(), store };
      };
      const first = apply(states);
      const second = apply(states.map((s) => ({ s, at: choices.next().value })).sort((x, y) => x.at - y.at).map((x) => x.s));
      expect({ visible: first.visible, hidden: first.hidden }).toEqual({ visible: second.visible, hidden: second.hidden });
      const emails = first.visible.map((k) => first.store.get(k)!.row['email']);
      expect(new Set(emails).size).toBe(emails.length);
      for (const key of first.hidden) {
        const loser = first.store.get(key)!;
        expect([...first.store.values()].some((s) => isAlive(s) && s.row['email'] === loser.row['email'] && outranks(s, loser))).toBe(true);
      }
    }), { numRuns: 1000 });
  });

  it('a hidden row returns when its winner leaves', () => {
    const store = new Map<string, RowState>();
    mergeInto(store, { ...nothing('1'), w: 10n, row: { email: 'x' } });
    mergeInto(store, { ...nothing('2'), w: 20n, row: { email: 'x' } });
    expect(visibility(store.values(), table).visible.map((s) => s.key)).toEqual(['2']);
    mergeInto(store, { ...nothing('2'), d: 30n });
    expect(visibility(store.values(), table).visible.map((s) => s.key)).toEqual(['1']);
  });

  it('a row that fails its check is hidden but keeps its claims', () => {
    const strict = { byColumn: false, uniques: [['email']], valid: (v: Readonly<Record<string, string | null>>) => v['ok'] !== 'no' };
    const states = [{ ...nothing('1'), w: 10n, row: { email: 'x', ok: 'yes' } }, { ...nothing('2'), w: 20n, row: { email: 'x', ok: 'no' } }];
    expect(visibility(states, strict).visible).toEqual([]);
  });
});

describe('values', () => {
  it('counters add up exactly, whatever their size and decimals', () => {
    expect(sumDecimals(['1', '2.50', '-0.5'])).toBe('3.00');
    expect(sumDecimals(['99999999999999999999', '1'])).toBe('100000000000000000000');
    expect(sumDecimals(['-0.05'])).toBe('-0.05');
    expect(() => sumDecimals(['NaN'])).toThrow(RangeError);
    fc.assert(fc.property(fc.array(fc.bigInt({ min: -(10n ** 30n), max: 10n ** 30n })), (list) => {
      expect(sumDecimals(list.map(String))).toBe(list.reduce((a, b) => a + b, 0n).toString());
    }));
  });

  it('a later life counts anew', () => {
    const first: RowState = { ...nothing('k'), w: 10n, generation: 0n, counters: { n: { '1': { stamp: 10n, total: '5' } } } };
    const second: RowState = { ...nothing('k'), w: 30n, generation: 20n, counters: { n: { '2': { stamp: 30n, total: '1' } } } };
    const late: RowState = { ...nothing('k'), w: 15n, generation: 0n, counters: { n: { '3': { stamp: 15n, total: '7' } } } };
    expect(valuesOf([first, second, late].reduce(join))['n']).toBe('1');
    expect(valuesOf(join(first, late))['n']).toBe('12');
  });

  it('reads journal lines with stamps above 2^53', () => {
    const table: JournalTable = { byColumn: true, uniques: [], sent: ['id', 'a', 'n'], keys: ['id'], counters: ['n'], rowColumns: [] };
    const line = { op: 'D', w: '111647122769935873', m: '{"b": 111647122765020673, "c": {"n": {"1": [2.50, 111647122765020674]}}, "g": 0, "s": {"a\\"1": 1}, "w": 111647122765020675}', img: ['7', 'v', '3'] };
    const got = stateOfLine(line, table);
    expect(got).toMatchObject({ key: '7', d: 111647122769935873n, w: 111647122765020675n, generation: 0n, counters: { n: { '1': { total: '2.50', stamp: 111647122765020674n } } }, registers: { a: { stamp: 111647122765020673n, value: 'v' } } });
    expect(parseStamps('{"a": "1e5", "b": -12.5}')).toEqual({ a: '1e5', b: '-12.5' });
  });

  it('writes arrays as PostgreSQL does', () => {
    expect(arrayText(['a', '', 'NULL', 'a b', 'q"\\', '{'])).toBe('{a,"","NULL","a b","q\\"\\\\","{"}');
  });
});
