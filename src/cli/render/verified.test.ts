import { describe, expect, it } from 'vitest';
import type { TableReport, VerifyReport } from '../../workflows/verify.ts';
import { renderVerified } from './verified.ts';

const table = (name: string, more: Partial<TableReport> = {}): TableReport => ({
  table: { schema: 'public', name }, target: { schema: 'public', name }, status: 'equal', reason: null, rows: { source: 10, target: 10 }, missing: 0, extra: 0, changed: 0, shown: [], notes: [], repaired: null, lsn: null, ...more,
});
const report = (tables: TableReport[], more: Partial<VerifyReport> = {}): VerifyReport => {
  const count = (status: TableReport['status']) => tables.filter((t) => t.status === status).length;
  return {
    format: 1, job: 'default', mode: 'running', lsn: '3A/9F30A118', pausedMs: 41, startedAt: '2026-03-01T00:00:00Z', durationMs: 372_000, sample: null, tables, sequences: [], largeObjects: null, notes: [], ok: true,
    totals: { tables: tables.length, equal: count('equal'), different: count('different'), notCompared: count('not-compared'), leftOut: count('left-out'), rows: 1_911_204_771, differingRows: 0 }, ...more,
  };
};

describe('renderVerified', () => {
  it('says in two lines that all is equal', () => {
    expect(renderVerified(report([table('a'), table('b'), table('fast', { status: 'left-out', reason: 'unlogged: changes are not in the WAL' })]))).toEqual([
      '2 tables, 1,911,204,771 rows compared at 3A/9F30A118 in 00:06:12; the applier paused for 41 ms',
      '2 tables equal, 1 left out (unlogged).',
    ]);
  });

  it('names rows, columns and the command that mends them', () => {
    const shown = [
      { kind: 'changed' as const, key: { id: '17' }, count: 1, columns: [{ name: 'amount', source: '10.00', target: '10.0' }] },
      { kind: 'missing' as const, key: { id: '904' }, count: 1, columns: [] },
    ];
    expect(renderVerified(report([table('a'), table('prices', { status: 'different', changed: 1, missing: 1, shown })]), { flags: ' --job shop' }).slice(1)).toEqual([
      '  public.prices   2 rows differ   id=17: amount 10.00 here, 10.0 there   id=904: missing on the target',
      '1 table equal, 1 differs.  pgweave verify --job shop --tables public.prices --repair',
    ]);
  });

  it('shows NULL, empty text, rows without a key, and no control characters', () => {
    const shown = [
      { kind: 'changed' as const, key: { id: '1' }, count: 1, columns: [{ name: 'a', source: null, target: '' }] },
      { kind: 'extra' as const, key: null, count: 3, columns: [{ name: 'a', source: null, target: 'x\u001b[2Jy' }] },
      { kind: 'changed' as const, key: { id: '3' }, count: 1, columns: [{ name: 'a', source: '1', target: '2' }] },
    ];
    const lines = renderVerified(report([table('t', { status: 'different', changed: 90, extra: 3, shown }), table('p', { status: 'not-compared', reason: 'paused at 0/1: why' })]));
    expect(lines).toContain('      id=1: a NULL here, \'\' there');
    expect(lines).toContain('      3 times only on the target: (x␛[2Jy)');
    expect(lines).toContain('      and 88 more');
    expect(lines.join('\n')).toContain('public.p   not compared: paused at 0/1: why');
    expect(renderVerified(report([table('t', { status: 'different', changed: 2, shown })]), { values: false }).join('\n')).toContain('id=3: a\n');
  });
});
