import { describe, expect, it } from 'vitest';
import { judge, type NativeStatus } from '../../workflows/status.ts';
import { renderNativeStatus } from './native-status.ts';

const worker = { pid: 9, kind: 'apply', table: null, received_lsn: '0/20', silent_ms: 210, latest_end_lsn: '0/20', latest_end_time: '2026-11-28T02:14:10.123Z' };
const slot = { name: 'pgweave_shop', activePid: 7, walStatus: 'reserved', retainedBytes: 3 * 1024 ** 3, safeBytes: 61 * 1024 ** 3, confirmedLsn: '0/10', currentLsn: '0/20' };
const source = { place: 'old:5432/shop', version: '15.18', slot, sender: { pid: 7, state: 'streaming', client: null, sent_lsn: '0/20', replay_lag_ms: 12 } };
const target = {
  place: 'new:5432/shop', version: '18.4', subscription: { name: 'pgweave_shop', enabled: true, slot: 'pgweave_shop', binary: true, streaming: 'p', twoPhase: 'd', origin: 'any' }, workers: [worker],
  errors: { apply: 2, sync: 1, conflicts: { insert_exists: 3, update_missing: 0 }, resetAt: null },
};
const table = (name: string, state: NativeStatus['tables'][number]['state']) => ({ schema: 'Odd.S', name, state });
const facts = { job: 'shop', source, target, tables: [table('a', 'r')], lagBytes: 16, switched: false } as const;

describe('status of a native subscription', () => {
  it('shows slot, lag, room, workers, errors, and each table that does not stream by the name of its state', () => {
    const tables = (['r', 's', 'f', 'd', 'i'] as const).map((state) => table(`t_${state}`, state));
    const text = renderNativeStatus({ format: 1, kind: 'native', job: 'shop', at: '', source, target, tables, lagBytes: 16, lagMs: 12, problems: [], verdict: judge({ ...facts, tables }) }).join('\n');
    for (const part of [
      'old:5432/shop → new:5432/shop', 'copying', 'lag 16 B (12 ms)', 'target has everything up to 0/10', 'slot pgweave_shop in use by pid 7 (streaming)', 'keeps 3.00 GB of WAL for it; room for 61.0 GB', 'apply (pid 9)',
      'last word from the source 210 ms ago; it was at 0/20 at 2026-11-28T02:14:10'.replace('T', ' '), 'errors: 2 applying, 1 copying; conflicts: 3 insert exists', 'tables  1 streaming, 1 copied, catching up, 1 copied, meeting the stream, 1 copying, 1 waiting for its copy',
      '"Odd.S".t_i  waiting for its copy', '4 of 5 tables are not there yet', 'Copies failed 1 times',
    ]) expect(text).toContain(part);
    expect(text).not.toContain('t_r');
    expect(text).not.toContain('update missing');
  });

  it.each([
    ['ready', {}, 'pgweave verify --job shop'],
    ['catching-up', { lagBytes: 17 * 1024 ** 2 }, '17.0 MB of WAL behind'],
    ['copying', { tables: [table('a', 'd')] }, '1 of 1 tables'],
    ['deferred', { tables: [] }, '--copy-now'],
    ['disabled', { target: { ...target, subscription: { ...target.subscription, enabled: false } } }, 'ALTER SUBSCRIPTION "pgweave_shop" ENABLE'],
    ['failing', { target: { ...target, workers: [] } }, 'SKIP (lsn = …)'],
    ['failing', { source: { ...source, slot: { ...slot, activePid: null } } }, '2 errors so far'],
    ['broken', { source: { ...source, slot: null } }, 'The slot is gone'],
    ['broken', { source: { ...source, slot: { ...slot, walStatus: 'lost (wal_removed)' } } }, 'has removed WAL'],
    ['unknown', { target: null }, 'The target cannot be reached'],
    ['unknown', { source: null }, 'The source cannot be reached'],
    ['switched-over', { switched: true, target: null }, 'pgweave cleanup --job shop'],
  ] as const)('ends with a plain word: %s', (state, change, said) => {
    expect(judge({ ...facts, ...change })).toMatchObject({ state, text: expect.stringContaining(said) });
  });
});
