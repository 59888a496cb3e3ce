import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { partCondition, planParts } from './parts.ts';

describe('planParts', () => {
  it('covers every block once, with no bound at either end', () => {
    fc.assert(fc.property(fc.integer({ min: 0, max: 100_000 }), fc.integer({ min: 0, max: 1_000_000_000 }), fc.integer({ min: 1, max: 100 }), (blocks, bytes, wanted) => {
      const parts = planParts({ blocks, bytes }, Math.ceil(bytes / wanted));
      expect(parts.length).toBeLessThanOrEqual(wanted);
      expect(parts[0]!.fromBlock).toBeUndefined();
      expect(parts.at(-1)!.toBlock).toBeUndefined();
      parts.forEach((part, i) => {
        expect(part.number).toBe(i + 1);
        if (i > 0) expect(part.fromBlock).toBe(parts[i - 1]!.toBlock);
        if (part.fromBlock !== undefined && part.toBlock !== undefined) expect(part.toBlock).toBeGreaterThan(part.fromBlock);
      });
      expect(parts.reduce((sum, part) => sum + part.bytes, 0)).toBe(bytes);
    }));
  });

  it('leaves small tables and empty ones whole, and never makes more parts than blocks', () => {
    expect(planParts({ blocks: 10, bytes: 81_920 }, 0)).toHaveLength(1);
    expect(planParts({ blocks: 0, bytes: 0 }, 1000)).toHaveLength(1);
    expect(planParts({ blocks: 2, bytes: 10_000_000 }, 1000)).toHaveLength(2);
  });

  it('says a part as a condition on ctid', () => {
    const [first, , last] = planParts({ blocks: 30, bytes: 300 }, 100);
    expect(partCondition(first!)).toBe(`ctid < '(10,0)'::pg_catalog.tid`);
    expect(partCondition(last!)).toBe(`ctid >= '(20,0)'::pg_catalog.tid`);
  });
});
