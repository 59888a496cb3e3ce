import fc from 'fast-check';
import { expect, it } from 'vitest';
import { livenessFor } from './liveness.ts';

it.each([
  [60_000, { statusEveryMs: 10_000, askAfterMs: 30_000, deadAfterMs: 120_000 }],
  [0, { statusEveryMs: 10_000, askAfterMs: 30_000, deadAfterMs: 120_000 }],
  [2000, { statusEveryMs: 500, askAfterMs: 1000, deadAfterMs: 4000 }],
  [2_147_483_647, { statusEveryMs: 10_000, askAfterMs: 30_000, deadAfterMs: 600_000 }],
])('wal_sender_timeout %i', (timeout, expected) => {
  expect(livenessFor(timeout)).toEqual(expected);
});

it('two statuses fit before the server gives up, and we ask before we give up', () => {
  fc.assert(fc.property(fc.integer({ min: 100, max: 2 ** 31 - 1 }), (timeout) => {
    const { statusEveryMs, askAfterMs, deadAfterMs } = livenessFor(timeout);
    expect(statusEveryMs * 3).toBeLessThan(timeout);
    expect(askAfterMs * 2).toBeLessThanOrEqual(deadAfterMs);
  }));
});
