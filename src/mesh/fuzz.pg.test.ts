import { afterEach, describe, expect, it } from 'vitest';
import { fuzz, fuzzTables } from '../../test/support/mesh-fuzz.ts';
import { MeshLab } from '../../test/support/mesh-lab.ts';

let lab: MeshLab | undefined;

afterEach(async () => {
  await lab?.[Symbol.asyncDispose]();
  lab = undefined;
});

/** Seeded, short; `npm run soak` runs the same for hours with other seeds. */
describe('random transactions on all nodes, with partitions, kills, skewed clocks and collection', () => {
  it('three nodes of 18, 16 and 17', async () => {
    lab = new MeshLab(fuzzTables());
    await lab.start([18, 16, 17]);
    const report = await fuzz(lab, { seed: 20_241, rounds: 80 });
    await lab.settle();
    expect(await lab.differences()).toEqual([]);
    // A run in which nothing was written, or all of it failed, would prove nothing.
    expect(report.statements - Object.values(report.errors).reduce((a, b) => a + b, 0)).toBeGreaterThan(400);
  });

  it('five nodes', async () => {
    lab = new MeshLab(fuzzTables());
    await lab.start([18, 17, 16, 18, 17]);
    await fuzz(lab, { seed: 5, rounds: 25 });
    await lab.settle();
    expect(await lab.differences()).toEqual([]);
  });
});
