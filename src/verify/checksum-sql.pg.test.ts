import { describe, expect, it } from 'vitest';
import { createDatabase, embeddedVersions, sharedServer } from '../../test/support/servers.ts';
import { BucketSums } from './bucket-sums.ts';
import { bucketSumsSql, checksumSettings, type BucketRow } from './checksum-sql.ts';
import type { Part, Unit, VerifyColumn } from './unit.ts';

const column = (name: string, type: string): VerifyColumn => ({ name, type, targetType: type, generated: false, alwaysIdentity: false });

describe('bucketSumsSql', () => {
  it('adds up to the same however a table is cut, on every version', async () => {
    const seen: BucketSums[] = [];
    for (const version of embeddedVersions) {
      await using database = await createDatabase(await sharedServer(version), 'sums');
      await database.run(`create table t (id int primary key, v text); insert into t select g, repeat('x', 150) || g from generate_series(1, 3000) g order by ${version % 2 === 0 ? 'g' : '-g'}; delete from t where id between 500 and 900`);
      const relation = { schema: 'public', name: 't', blocks: 70, ranges: true };
      const columns = [column('id', 'integer'), column('v', 'text')];
      const unit: Unit = { table: relation, target: relation, columns, key: [columns[0]!], sourceRelations: [relation], targetRelations: [relation], where: undefined, unlogged: false, buckets: 64, sample: undefined, targetHasMore: false, notes: [] };
      const session = await database.session();
      await session.query(checksumSettings);
      const sum = async (...cuts: number[]) => {
        const parts: Part[] = [0, ...cuts].map((from, i) => ({ relation, fromBlock: from, toBlock: cuts[i] }));
        const sums = new BucketSums(64);
        for (const part of parts) sums.add(await session.query<BucketRow>(bucketSumsSql(unit, 'source', part, { transcode: false })));
        return sums;
      };
      const whole = await sum();
      expect(whole.rows).toBe(2599);
      for (const cuts of [[1], [10, 20, 30], [69, 70, 500]]) expect((await sum(...cuts)).differing(whole)).toEqual([]);
      // A part that begins beyond the first block misses rows.
      const without = new BucketSums(64);
      without.add(await session.query<BucketRow>(bucketSumsSql(unit, 'source', { relation, fromBlock: 1, toBlock: undefined }, { transcode: false })));
      expect(without.differing(whole).length).toBeGreaterThan(0);
      seen.push(whole);
    }
    expect(seen.slice(1).flatMap((sums) => sums.differing(seen[0]!))).toEqual([]);
  });
});
