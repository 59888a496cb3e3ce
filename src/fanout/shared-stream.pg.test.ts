import { describe, expect, it } from 'vitest';
import { createDatabase, sharedServer, waitFor } from '../../test/support/servers.ts';
import type { Batch } from '../changes/change-log.ts';
import { tableKey } from '../core/tables.ts';
import { formatLsn, parseLsn } from '../pg/lsn.ts';
import { SharedStream } from './shared-stream.ts';
import { TargetLog } from './target-log.ts';

/** Reads until a row with this id comes; gives the ids of all rows, in order, and confirms what was read. */
async function readUntil(log: TargetLog, last: number): Promise<number[]> {
  const ids: number[] = [];
  const id = (bytes: Buffer, offset: number, length: number) => Number(bytes.toString('latin1', offset, offset + length));
  while (ids.at(-1) !== last) {
    const batch: Batch = await log.read({ maxBytes: 64 * 1024 });
    if (batch.kind === 'transactions') {
      for (const transaction of batch.transactions) {
        for (const change of transaction.changes()) if (change.type === 'insert') ids.push(id(change.newTuple.bytes, change.newTuple.offsets[0]!, change.newTuple.lengths[0]!));
        log.confirm(transaction.endLsn);
      }
    } else {
      for await (const part of batch.transaction.parts()) for (const change of part.changes()) if (change.type === 'insert') ids.push(id(change.newTuple.bytes, change.newTuple.offsets[0]!, change.newTuple.lengths[0]!));
      log.confirm(batch.transaction.endLsn);
    }
  }
  return ids;
}

describe('SharedStream', () => {
  it('gives each target everything once and in order: those that keep up, one that falls out of the window, and past a transaction that is too large to keep', async () => {
    await using source = await createDatabase(await sharedServer(16), 'shared');
    const job = `sh${process.pid}`;
    await source.run(`create table t (id int primary key, v text); create table other (id int primary key); create publication pgweave_${job} for table t, other`);
    const [slot] = await source.query<{ lsn: string }>(`select lsn::text as lsn from pg_create_logical_replication_slot('pgweave_${job}', 'pgoutput')`);
    const startLsn = parseLsn(slot!.lsn);
    const shared = await SharedStream.open({ source: source.spec, job, slot: `pgweave_${job}`, publications: [`pgweave_${job}`], startLsn, emit: () => undefined, keepBytes: 48 * 1024 });
    const only = new Set([tableKey({ schema: 'public', name: 't' })]);
    const wanted = () => only;
    const fast = new TargetLog({ shared, job: `${job}_a`, startLsn, wanted });
    const slow = new TargetLog({ shared, job: `${job}_b`, startLsn, wanted });
    const writer = await source.session();
    try {
      const all: number[] = [];
      for (let i = 1; i <= 300; i += 1) {
        await writer.query(`insert into t values (${i}, repeat('x', 1000)); insert into other values (${i})`);
        all.push(i);
      }
      expect(await readUntil(fast, 300)).toEqual(all);
      // The slot waits for the slow one.
      expect((await source.query<{ at: string }>(`select confirmed_flush_lsn::text as at from pg_replication_slots where slot_name = 'pgweave_${job}'`))[0]!.at).toBe(formatLsn(startLsn));
      expect(shared.covers(startLsn)).toBe(false);
      expect(await readUntil(slow, 300)).toEqual(all);

      // 8 MB in one transaction: passed over by the window, read by each for itself.
      await writer.query(`insert into t select i, repeat('y', 20000) from generate_series(1001, 1400) i`);
      await writer.query(`insert into t values (2000, 'after')`);
      const large = [...Array.from({ length: 400 }, (_, i) => 1001 + i), 2000];
      const [a, b] = await Promise.all([readUntil(fast, 2000), readUntil(slow, 2000)]);
      expect(a).toEqual(large);
      expect(b).toEqual(large);

      // Both are back in the window, and the slot goes on with an idle source.
      await writer.query(`insert into t values (3000, 'again')`);
      expect(await Promise.all([readUntil(fast, 3000), readUntil(slow, 3000)])).toEqual([[3000], [3000]]);
      expect([fast.readsAlone, slow.readsAlone]).toEqual([false, false]);
      await writer.query('create table noise as select i from generate_series(1, 1000) i');
      const [now] = await source.query<{ at: string }>('select pg_current_wal_lsn()::text as at');
      await waitFor('the slot to pass what nobody wants', async () => (await source.query<{ past: boolean }>(`select confirmed_flush_lsn >= $1::pg_lsn as past from pg_replication_slots where slot_name = 'pgweave_${job}'`, [now!.at]))[0]!.past);
      expect(await source.query(`select slot_name from pg_replication_slots where slot_name like 'pgweave_${job}%' order by 1`)).toEqual([{ slot_name: `pgweave_${job}` }]);
    } finally {
      await fast.close();
      await slow.close();
      await shared.close();
    }
  });
});
