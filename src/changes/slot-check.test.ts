import { describe, expect, it } from 'vitest';
import type { SlotStateRow } from '../catalog/slot-state.ts';
import type { Lsn } from '../pg/lsn.ts';
import { checkSlot, riskWarning, slotRisk } from './slot-check.ts';

const healthy: SlotStateRow = {
  slot_type: 'logical', plugin: 'pgoutput', database: 'shop', active_pid: null, wal_status: 'reserved', safe_wal_size: null, confirmed_flush_lsn: '0/500', invalidation: null, current_lsn: '0/900', retained_bytes: 1000n, keep_bytes: -1n,
};

describe('risk of a slot', () => {
  it.each([
    ['unlimited', {}, 'none'],
    ['much left', { safe_wal_size: 900n, keep_bytes: 1000n }, 'none'],
    ['a fifth left', { safe_wal_size: 200n, keep_bytes: 1000n, wal_status: 'extended' }, 'at-risk'],
    ['nothing left', { safe_wal_size: 0n, keep_bytes: 1000n, wal_status: 'extended' }, 'urgent'],
    ['below nothing', { safe_wal_size: -50n, keep_bytes: 1000n, wal_status: 'unreserved' }, 'urgent'],
    ['unreserved', { wal_status: 'unreserved' }, 'urgent'],
    ['lost', { wal_status: 'lost' }, 'lost'],
    ['invalidated by recovery', { invalidation: 'rows_removed' }, 'lost'],
  ] as const)('%s', (_name, change, risk) => {
    expect(slotRisk({ ...healthy, ...change })).toBe(risk);
  });

  it('is put into words with the bytes and the setting', () => {
    const warning = riskWarning('pgweave_default', 'at-risk', { safe_wal_size: 1048576n, retained_bytes: 5242880n, keep_bytes: 10485760n });
    expect(warning).toMatchObject({ code: 'slot-at-risk', message: 'slot pgweave_default keeps 5.00 MB of WAL; after 1.00 MB more it is in danger of being lost' });
    expect(warning.hint).toContain('now 10.0 MB');
  });
});

describe('check of a slot before streaming', () => {
  const check = (row: SlotStateRow | undefined, acknowledgedLsn?: bigint) => {
    try {
      checkSlot('s', row, { database: 'shop', acknowledgedLsn: acknowledgedLsn as Lsn | undefined });
      return 'fine';
    } catch (error) {
      return (error as { code: string }).code;
    }
  };

  it.each([
    ['fine', healthy, undefined],
    ['fine', healthy, 0x500n],
    ['slot-missing', undefined, undefined],
    ['slot-of-another-plugin', { ...healthy, plugin: 'wal2json' }, undefined],
    ['slot-of-another-plugin', { ...healthy, slot_type: 'physical', plugin: null }, undefined],
    ['slot-of-another-database', { ...healthy, database: 'other' }, undefined],
    ['slot-lost', { ...healthy, wal_status: 'lost' }, undefined],
    ['slot-advanced', healthy, 0x4ffn],
  ] as const)('%s', (code, row, acknowledged) => {
    expect(check(row, acknowledged)).toBe(code);
  });
});
