import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { afterAll, describe, expect, it } from 'vitest';
import { makePair, type Pair } from '../../test/support/follow.ts';
import { sharedServer, waitFor } from '../../test/support/servers.ts';
import { runningFollower } from '../changes/control.ts';
import { Session } from '../pg/session.ts';
import { tableCommand } from './table.ts';

const child = new URL('../../test/support/follow-child.ts', import.meta.url).pathname;

const children: ChildProcess[] = [];
afterAll(() => {
  for (const one of children) one.kill('SIGKILL');
});

/** A follower in a process of its own, killed by a failpoint or by us. */
function start(pair: Pair, failpoints: string, extra: Record<string, unknown> = {}) {
  const process_ = spawn(process.execPath, ['--import', import.meta.resolve('tsx'), child, JSON.stringify({ source: pair.source.uri, target: pair.target.uri, job: pair.job, ...extra })], { stdio: ['ignore', 'ignore', 'inherit'], env: { ...process.env, PGWEAVE_FAILPOINTS: failpoints } });
  children.push(process_);
  const ended = once(process_, 'exit').then(([code, signal]) => ({ code: code as number | null, signal: signal as NodeJS.Signals | null }));
  return { process: process_, ended };
}

describe('a follower that is killed', () => {
  it('loses nothing and applies nothing twice, wherever it dies', async () => {
    const [from, to] = [await sharedServer(14), await sharedServer(17)];
    const schema = `create table accounts (id int primary key, balance int, note text); create table log (id bigint primary key, account int, delta int, big text); create table plain (a int, b text); alter table plain replica identity full; create table swap (id int primary key, u int unique)`;
    await using pair = await makePair(from, to, schema);
    await pair.source.run(`insert into accounts select g, 0, 'x' from generate_series(1, 50) g; insert into swap select g, g from generate_series(1, 10) g`);
    let writing = true;
    const acknowledged: number[] = [];
    const writer = (async () => {
      await using session = await pair.source.session();
      for (let i = 0; writing; i += 1) {
        const [a, b] = [(i % 50) + 1, ((i * 7) % 50) + 1];
        await session.query(`begin; update accounts set balance = balance + ${i} where id = ${a}; update accounts set balance = balance - ${i}, note = '${i}' where id = ${b}; insert into log values (${i}, ${a}, ${i}, ${i % 40 === 0 ? `repeat('x', 30000)` : 'null'});
          insert into plain values (${i % 20}, 'p'); savepoint s; delete from log where id > ${i} - 5; rollback to s; delete from plain where ctid in (select ctid from plain where a = ${(i + 5) % 20} limit 1); ${i % 90 === 0 ? `update accounts set id = id where id < 0; truncate plain;` : ''}
          update swap set u = -1 where id = 1; update swap set u = (select u from swap where id = 2) + 0 where id = -1; update swap set u = 1000 + ${i} where id = 1; ${i % 60 === 0 ? `insert into log select 1000000 + ${i} * 1000 + g, 1, 0, repeat('y', 200) from generate_series(1, 800) g;` : ''} commit`);
        acknowledged.push(i);
        await new Promise((resolve) => setTimeout(resolve, 3));
      }
    })();
    try {
      for (const failpoints of ['apply.sent=kill@5', 'apply.committed=kill@4', 'receive.after-ack=kill@3']) {
        const { ended } = start(pair, failpoints);
        expect(await ended, failpoints).toEqual({ code: null, signal: 'SIGKILL' });
      }
      // At a time of nobody's choosing, while large batches are sent ahead.
      {
        const before = acknowledged.length;
        const { process: running, ended } = start(pair, '', { setWiseFrom: 1 });
        await waitFor('the target to move', async () => (await pair.target.query<{ n: number }>('select count(*)::int as n from log where id < 1000000'))[0]!.n > before - 1, 60_000);
        running.kill('SIGKILL');
        expect((await ended).signal).toBe('SIGKILL');
      }
      // While a table is copied anew: it is found so, and copied again by word.
      const running = start(pair, 'recopy.before-commit=kill@1');
      await using target = await Session.open(pair.target.spec, { role: 'test' });
      await waitFor('the follower to run', () => runningFollower(target, pair.job));
      const asked = tableCommand({ source: pair.source.spec, target: pair.target.spec, job: pair.job, table: { schema: 'public', name: 'log' }, action: 'copy-again' }).catch((error: unknown) => error);
      expect((await running.ended).signal).toBe('SIGKILL');
      await asked;
    } finally {
      writing = false;
      await writer;
    }
    const one = await pair.follow();
    await waitFor('the copy to be made again', async () => (await tableCommand({ source: pair.source.spec, target: pair.target.spec, job: pair.job, table: { schema: 'public', name: 'log' } })).state?.name === 'streaming');
    await pair.caughtUp(one);
    for (const table of ['accounts', 'log', 'plain', 'swap']) {
      const { source, target } = await pair.rows(table);
      expect(target, table).toEqual(source);
    }
    const [row] = await pair.target.query<{ n: number; sum: bigint }>('select count(*)::int as n, sum(balance)::int8 as sum from accounts');
    expect(row).toEqual({ n: 50, sum: 0n });
    const ids = new Set((await pair.target.query<{ id: bigint }>('select id from log where id < 1000000')).map((r) => Number(r.id)));
    expect(acknowledged.filter((i) => !ids.has(i))).toEqual([]);
    expect(acknowledged.length).toBeGreaterThan(50);
    await one.stop();
  }, 240_000);
});
