import { describe, expect, it } from 'vitest';
import { createDatabase, sharedServer, waitFor } from '../../../test/support/servers.ts';
import { armFailpoints } from '../../core/failpoints.ts';
import { parseConninfo } from '../../pg/conninfo.ts';
import { carrySequences } from '../../copy/sequences.ts';
import { lockSource, restoreWrites, type PreviousSetting } from './lock-source.ts';

const setting = `select unnest(setconfig) as c from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase where d.datname = current_database()`;
const orders = { schema: 'public', name: 'orders' };

describe('stopping writes on the source', () => {
  it.each([14, 18] as const)('refuses writes on %i, also of a session that overrides the default, and takes them again', async (version) => {
    await using source = await createDatabase(await sharedServer(version), 'lock');
    await source.run('create table orders (id int); create sequence s');
    const old = await source.session();
    await old.query('insert into orders values (1)');
    const remembered: PreviousSetting[] = [];
    {
      await using lock = await lockSource(source.spec, { job: 'j1', scope: 'database', tables: [orders], timeoutMs: 60_000, remember: (p) => void remembered.push(p) });
      expect(lock).toMatchObject({ sessionsLeft: [], tablesLocked: 1 });
      // A session that was closed a moment ago may still be there to be ended.
      expect(lock.sessionsEnded).toBeGreaterThanOrEqual(1);
      await expect(old.query('insert into orders values (2)')).rejects.toBeInstanceOf(Error);
      const fresh = await source.session();
      await expect(fresh.query('create table other (id int)')).rejects.toMatchObject({ code: '25006' });
      await expect(fresh.query(`select nextval('s')`)).rejects.toMatchObject({ code: '25006' });
      await fresh.query(`set default_transaction_read_only = off; set lock_timeout = '50ms'`);
      await expect(fresh.query('insert into orders values (2)')).rejects.toMatchObject({ code: '55P03' });
      expect(await fresh.query('select * from orders')).toHaveLength(1);
    }
    await source.run('insert into orders values (3)');
    expect(await source.query(setting)).toEqual([]);
    // As it was, not as it is by default; and kept where the target has taken over.
    await source.run(`alter database "${source.name}" set default_transaction_read_only = 'off'`);
    const kept = await lockSource(source.spec, { job: 'j1', scope: 'database', tables: [orders], timeoutMs: 60_000, remember: (p) => void remembered.push(p) });
    await kept.keep();
    await expect(source.run('insert into orders values (4)')).rejects.toMatchObject({ code: '25006' });
    await restoreWrites(source.spec, remembered[1]!);
    expect(await source.query(setting)).toEqual([{ c: 'default_transaction_read_only=off' }]);
    expect(remembered).toEqual([{ defaultTransactionReadOnly: null }, { defaultTransactionReadOnly: 'off' }]);
  });

  it('gives up in time when a writer does not end, names it, and leaves nothing locked', async () => {
    await using source = await createDatabase(await sharedServer(16), 'lock');
    await source.run('create table orders (id int)');
    const writer = await source.session();
    await writer.query('begin; insert into orders values (1)');
    await expect(lockSource(source.spec, { job: 'j1', scope: 'tables', tables: [orders], timeoutMs: 300 })).rejects.toMatchObject({ code: 'lock-timeout', message: expect.stringContaining(`pid ${writer.pid}`) });
    await writer.query('insert into orders values (2); commit');
    await source.run('insert into orders values (3)');
  });

  it.each(['lock.before-read-only', 'lock.after-read-only', 'lock.after-sessions', 'lock.after-tables'])('undoes everything after a failure at %s', async (point) => {
    await using source = await createDatabase(await sharedServer(15), 'lock');
    await source.run('create table orders (id int)');
    armFailpoints(`${point}=error`);
    try {
      await expect(lockSource(source.spec, { job: 'j1', scope: 'database', tables: [orders], timeoutMs: 60_000 })).rejects.toThrow(`failpoint ${point}`);
    } finally {
      armFailpoints('');
    }
    await source.run('insert into orders values (1)');
    expect(await source.query(setting)).toEqual([]);
  });

  it('says what a role that may not needs, and leaves others\' sessions to the locks', async () => {
    const server = await sharedServer(15);
    await using source = await createDatabase(server, 'lock');
    const role = `locker_${process.pid}`;
    await source.run(`create table orders (id int); create role ${role} login`);
    try {
      const spec = parseConninfo(server.uri(source.name, role));
      const lock = (scope: 'database' | 'tables') => lockSource(spec, { job: 'j1', scope, tables: [orders], timeoutMs: 30_000 });
      await expect(lock('database')).rejects.toMatchObject({ code: 'may-not-lock', hint: expect.stringContaining('OWNER TO') });
      await expect(lock('tables')).rejects.toMatchObject({ code: 'may-not-lock', hint: expect.stringContaining('GRANT UPDATE') });
      await source.run(`grant update on orders to ${role}; alter database "${source.name}" owner to ${role}`);
      const superuser = await source.session();
      {
        await using locked = await lock('database');
        expect(locked.sessionsLeft).toContainEqual(expect.objectContaining({ pid: superuser.pid, user: 'postgres' }));
        const writing = superuser.query('insert into orders values (1)');
        await waitFor('the write to wait', async () => (await source.query(`select 1 from pg_locks where pid = ${superuser.pid} and not granted`)).length > 0);
        await locked.release();
        await writing;
      }
    } finally {
      await source.run(`reassign owned by ${role} to postgres; drop owned by ${role}; drop role ${role}`);
    }
  });
});

describe('carrying sequences over', () => {
  it('keeps is_called, direction, limits and cycles, goes ahead by the buffer, and never back', async () => {
    await using source = await createDatabase(await sharedServer(14), 'seq');
    await using target = await createDatabase(await sharedServer(17), 'seq');
    const schema = `create schema "Odd.S"; create table t (id bigserial, k int generated always as identity); create sequence "Odd.S"."s""1"; create sequence down increment -5 minvalue -1000 maxvalue -1 start -1; create sequence ring minvalue 1 maxvalue 10 cycle; create sequence fresh start 7;
      create sequence full_one as smallint maxvalue 100; create sequence ahead; create sequence huge;`;
    await source.run(`${schema} create sequence gone; select setval('t_id_seq', 41), setval('"Odd.S"."s""1"', 5, false), setval('down', -21), setval('ring', 9), setval('full_one', 99), setval('ahead', 10), setval('huge', 9007199254740993), nextval('t_k_seq')`);
    await target.run(`${schema} select setval('ahead', 5000)`);
    await using from = await source.session();
    await using to = await target.session();
    const values = async () => Object.fromEntries((await to.query<{ n: string; v: bigint; c: boolean }>(['t_id_seq', 't_k_seq', '"Odd.S"."s""1"', 'down', 'ring', 'fresh', 'full_one', 'ahead', 'huge'].map((n) => `select '${n.replace(/"/g, '')}' as n, last_value as v, is_called as c from ${n}`).join(' union all '))).map((r) => [r.n, `${r.v} ${r.c}`]));
    const plain = await carrySequences(from, to);
    expect(plain.missing).toEqual([{ schema: 'public', name: 'gone' }]);
    expect(plain.ahead).toEqual([{ schema: 'public', name: 'ahead' }]);
    expect(await values()).toEqual({ t_id_seq: '41 true', t_k_seq: '1 true', 'Odd.S.s1': '5 false', down: '-21 true', ring: '9 true', fresh: '7 false', full_one: '99 true', ahead: '5000 true', huge: '9007199254740993 true' });
    expect((await carrySequences(from, to, { buffer: 100n })).set).toHaveLength(8);
    expect(await values()).toMatchObject({ t_id_seq: '141 true', 'Odd.S.s1': '105 false', down: '-521 true', ring: '10 true', fresh: '107 false', full_one: '99 true', huge: '9007199254741093 true' });
    // Once more without the buffer: nothing goes back, but what cycles.
    expect((await carrySequences(from, to, { select: (s) => s.name !== 'gone' })).ahead.map((s) => s.name)).toEqual(['s"1', 'ahead', 'down', 'fresh', 'huge', 't_id_seq', 't_k_seq']);
  });
});
