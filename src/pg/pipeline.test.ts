import { describe, expect, it } from 'vitest';
import { copyBytes } from './pipeline.ts';

describe('copyBytes', () => {
  it('copies exactly these bytes, at any offset and length, between buffers that change and lie inside larger ones', () => {
    const pool = Buffer.from(Array.from({ length: 4096 }, (_, i) => (i * 197 + 11) % 256));
    const sources = [pool, pool.subarray(3, 2000), Buffer.from(pool)];
    const targets = [Buffer.alloc(600), Buffer.alloc(1000).subarray(7, 601)];
    for (let length = 0; length <= 130; length += 1) {
      for (const [n, from] of sources.entries()) {
        for (const to of targets) {
          const at = (length * 13 + n) % 300;
          const toAt = (length * 7 + n) % 200;
          to.fill(0);
          copyBytes(from, at, length, to, toAt);
          const expected = Buffer.alloc(to.length);
          from.copy(expected, toAt, at, at + length);
          expect(to.equals(expected), `${length} bytes from ${at} to ${toAt}`).toBe(true);
        }
      }
    }
  });
});
