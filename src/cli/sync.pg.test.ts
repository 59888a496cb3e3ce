import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runCli, startCli, stateFolder } from '../../test/support/cli.ts';
import { createDatabase, privateServer, sharedServer, waitFor, type Cluster, type TestDatabase } from '../../test/support/servers.ts';
import { quoteIdent } from '../pg/identifiers.ts';
import { parseConninfo } from '../pg/conninfo.ts';
import { Session } from '../pg/session.ts';

let jobs = 0;
const newJob = () => `sc${process.pid}_${(jobs += 1)}`;

async function rows(database: TestDatabase, table: string): Promise<string> {
  return (await database.query<{ all: string }>(`select coalesce(json_agg(to_jsonb(t) order by to_jsonb(t)), '[]')::text as all from ${table} t`))[0]!.all;
}

describe('pgweave clone --sync', { timeout: 300_000 }, () => {
  it('copies and hands over under a writer, also after a kill in mid-copy, and is switched over', async () => {
    using folder = stateFolder();
    await using source = await createDatabase(await sharedServer(15), 'cs_src');
    await using target = await createDatabase(await sharedServer(17), 'cs_dst');
    await source.run(`create table "Or""ders ä" (id int primary key, v int); insert into "Or""ders ä" select i, 0 from generate_series(1, 3000) i;
      create table big (id bigint generated always as identity primary key, v text); insert into big (v) select repeat('x', 50) from generate_series(1, 5000);
      create table old (id int primary key); insert into old select generate_series(1, 20); create table secret (id int primary key); insert into secret values (1)`);
    const job = newJob();
    const args = ['clone', '--sync', '--source', source.uri, '--target', target.uri, '--job', job, '--dir', folder.path, '--jobs', '1', '--exclude-tables', 'secret', '--table-filter', 'old:id > 10', '--json', '--yes'];
    const writer = await source.session();
    let stop = false;
    const writing = (async () => {
      for (let n = 1; !stop; n += 1) await writer.query(`begin; update "Or""ders ä" set v = v + 1 where id = ${1 + (n % 3000)}; insert into big (v) values ('${n}'); ${n % 20 === 0 ? `delete from big where id = ${n};` : ''} commit`);
    })();
    try {
      const killed = await runCli(args, { PGWEAVE_FAILPOINTS: 'copy.table-done=kill' });
      expect(killed.signal ?? killed.code).toBe('SIGKILL');
      const done = await runCli(args);
      expect(`${done.stderr}${done.code}`).toMatch(/0$/);
      expect(JSON.parse(done.stdout)).toMatchObject({ mode: 'sync', resumed: true, sync: { outcome: 'handed-over' } });
    } finally {
      stop = true;
      await writing;
    }
    for (const table of ['"Or""ders ä"', 'big', '(select * from old where id > 10)']) {
      const wanted = await rows(source, table);
      await waitFor(`${table} to be equal`, async () => (await rows(target, table)) === wanted);
    }
    expect(await target.query(`select to_regclass('public.secret') as t, (select count(*)::int from old) as n`)).toEqual([{ t: null, n: 10 }]);
    const text = await runCli(['status', '--job', job, '--dir', folder.path]);
    expect(text.stdout).toContain('3 streaming');
    expect(text.stdout).toContain(`Next: pgweave verify --job ${job}, then pgweave switchover --job ${job}`);
    expect(await runCli(['follow', '--job', job, '--dir', folder.path])).toMatchObject({ code: 2, stderr: expect.stringContaining(`is followed by the native subscription pgweave_${job}`) });
    const other = await runCli([...args, '--exclude-tables', 'big']);
    expect(other).toMatchObject({ code: 2, stderr: expect.stringContaining('began with another selection') });
    const over = await runCli(['switchover', '--job', job, '--dir', folder.path, '--yes']);
    expect(over).toMatchObject({ code: 0, stdout: expect.stringContaining('Writes were refused for') });
    await target.run(`insert into big (v) values ('new')`);
    await expect(source.run(`insert into big (v) values ('new')`)).rejects.toMatchObject({ code: '25006' });
  });

  it('status --watch shows the copy proceed and ends with Ctrl-C; each state has its word', async () => {
    using folder = stateFolder();
    await using source = await createDatabase(await sharedServer(18), 'cs_src');
    await using target = await createDatabase(await sharedServer(18), 'cs_dst');
    await source.run('create table a (id int primary key); insert into a values (1); create table b (id int primary key)');
    await target.run('create table a (id int primary key); create table b (id int primary key)');
    const job = newJob();
    const common = ['--job', job, '--dir', folder.path];
    expect(await runCli(['status', ...common])).toMatchObject({ code: 1, stderr: expect.stringContaining(`nothing is known of job "${job}"`) });
    // A slip of the pen is not held against the corrected command.
    expect(await runCli(['sync', '--source', source.uri, '--target', target.uri, ...common, '--yes', '--exclude-tables', 'bb'])).toMatchObject({ code: 2, stderr: expect.stringContaining('Nearest to bb: public.b') });
    const made = await runCli(['sync', '--source', source.uri, '--target', target.uri, ...common, '--yes']);
    expect(made).toMatchObject({ code: 0, stdout: expect.stringContaining('PostgreSQL copies the tables now') });
    const watch = startCli(['status', ...common, '--watch', '--interval', '200ms']);
    await waitFor('the word that all stream', () => watch.output().stdout.includes('All tables stream.'));
    await target.run(`alter subscription pgweave_${job} disable`);
    await waitFor('the word that it is disabled', () => watch.output().stdout.includes('The subscription is disabled'));
    // A row in the way: the worker fails, and 18 counts the conflict.
    await target.run(`insert into b values (7); alter subscription pgweave_${job} enable`);
    await source.run('insert into b values (7)');
    await waitFor('the conflict', () => /errors: [1-9]\d* applying, 0 copying; conflicts: [1-9]\d* insert exists/.test(watch.output().stdout));
    watch.child.kill('SIGINT');
    expect((await watch.done).code).toBe(0);
    await target.run('delete from b');
    const ofOne = await runCli(['status', ...common, '--include-tables', 'b']);
    expect(ofOne.stdout).toMatch(/public\.b +streaming/);
    expect(ofOne.stdout).not.toContain('public.a');
  });
});

describe('a command that is refused', { timeout: 300_000 }, () => {
  it('makes nothing, and binds nobody to what it was given', async () => {
    using folder = stateFolder();
    await using source = await createDatabase(await sharedServer(16), 'rf_src');
    await using target = await createDatabase(await sharedServer(16), 'rf_dst');
    await source.run(`create table a (id int primary key, at timestamptz default now()); alter table a replica identity full; insert into a values (1, now()), (2, now() - interval '1 year'); create table bare (v int);
      create function own(int) returns int language sql immutable as 'select $1'`);
    const args = ['clone', '--sync', '--source', source.uri, '--target', target.uri, '--job', newJob(), '--dir', folder.path, '--yes'];
    for (const [more, code, said] of [
      [[], 3, 'public.bare has no replica identity'], [['--exclude-tables', 'bare', '--table-filter', 'a:public.own(id) > 0'], 3, 'no such row filter'], [['--insert-only', 'baer'], 2, 'Nearest to baer: public.bare'], [['--include-tables', ''], 2, '--include-tables names nothing'],
    ] as const) expect(await runCli([...args, ...more])).toMatchObject({ code, stderr: expect.stringContaining(said) });
    expect(await source.query('select pubname from pg_publication')).toEqual([]);
    expect(await target.query(`select nspname from pg_namespace where nspname = 'pgweave'`)).toEqual([]);
    // The other rules are no others for a job that has made nothing; the window is told as it was fixed.
    const plan = await runCli([...args, '--dry-run', '--exclude-tables', 'bare', '--time-filter', 'a:at:1 month']);
    expect(plan).toMatchObject({ code: 0, stdout: expect.stringMatching(/rows of a of the last 1 month by at \(since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+00\)/) });
    const done = await runCli([...args, '--exclude-tables', 'bare', '--time-filter', 'a:at:1 month']);
    expect(done).toMatchObject({ code: 0, stderr: expect.stringContaining('rows of a of the last 1 month by at (since ') });
    expect(await target.query('select id from a')).toEqual([{ id: 1 }]);
    // Now there is something that other rules would not fit.
    expect(await runCli([...args, '--exclude-tables', 'bare'])).toMatchObject({ code: 2, stderr: expect.stringContaining('began with another selection') });
  });
});

// Twenty clones, one after the other: minutes on a busy machine.
describe('a whole instance', { timeout: 900_000 }, () => {
  let from: Cluster;
  let to: Cluster;
  /** Twenty, and one that is left out. */
  const names = ['shop', 'Über 1', 'crm', 'a.b', 'tiny_1', 'tiny_2', ...Array.from({ length: 15 }, (_, i) => `more_${i}`)];

  beforeAll(async () => {
    [from, to] = await Promise.all([privateServer(16), privateServer(17)]);
    await using admin = await Session.open(parseConninfo(from.uri()), { role: 'test' });
    await admin.query('create role app login');
    for (const [i, name] of names.entries()) {
      await admin.query(`create database ${quoteIdent(name)}`);
      await using session = await Session.open(parseConninfo(from.uri(name)), { role: 'test' });
      await session.query(`create table public.t (id int primary key, v text); insert into public.t select n, 'row' from pg_catalog.generate_series(1, ${10 + i}) n; create table public.junk (id int primary key); grant select on public.t to app`);
    }
  });
  afterAll(async () => {
    await from.destroy();
    await to.destroy();
  });

  const query = async <T extends object>(server: Cluster, database: string, sql: string) => {
    await using session = await Session.open(parseConninfo(server.uri(database)), { role: 'test' });
    return await session.query<T>(sql);
  };

  it('is planned and checked before it begins: names that match nowhere are refused, databases that are yet to be made are no fault', async () => {
    using folder = stateFolder();
    const args = ['--include-databases', 'tiny_1,shop', '--source', from.uri('shop'), '--target', to.uri('postgres'), '--dir', folder.path, '--yes'];
    const plan = await runCli(['clone', '--dry-run', ...args]);
    expect(plan).toMatchObject({ code: 0, stdout: expect.stringContaining('Database "tiny_1" is not on the target yet and will be made.') });
    expect(plan.stdout.match(/Rows: at least/g)).toHaveLength(2);
    const checked = await runCli(['validate', ...args]);
    expect(checked).toMatchObject({ code: 0, stdout: expect.stringContaining('database "tiny_1" is not on the target yet and will be made') });
    for (const command of [['clone', '--dry-run'], ['validate']]) {
      expect(await runCli([...command, ...args, '--exclude-tables', 'tiny_1.jnuk'])).toMatchObject({ code: 2, stderr: expect.stringContaining('Nearest to tiny_1.jnuk: tiny_1.public.junk') });
    }
    // PostgreSQL copies no schema: an empty database would be of no use to sync.
    expect(await runCli(['sync', ...args])).toMatchObject({ code: 1, stdout: expect.stringMatching(/tiny_1 \(job tiny_1\): failed: .*database "tiny_1" does not exist/) });
    expect(await query(to, 'postgres', `select 1 from pg_database where datname in ('tiny_1', 'shop')`)).toEqual([]);
  });

  it('is one job for status, verify and cleanup; a command on one database says which there are', async () => {
    using folder = stateFolder();
    const job = newJob();
    const ends = ['--source', from.uri('shop'), '--target', to.uri('postgres'), '--job', job, '--dir', folder.path, '--yes'];
    expect(await runCli(['clone', '--sync', '--include-databases', 'tiny_1,shop', ...ends])).toMatchObject({ code: 0 });
    try {
      // Also where the ends are given: each database is looked at where it is.
      const status = await runCli(['status', ...ends]);
      expect(status.stdout.match(/native subscription pgweave_sc\w+_(shop|tiny_1) /g)).toHaveLength(2);
      expect((await runCli(['status', ...ends, '--include-databases', 's*'])).stdout).not.toContain('tiny_1');
      expect(await runCli(['verify', ...ends])).toMatchObject({ code: 0, stdout: expect.stringMatching(/database shop[^]*2 tables equal[^]*database tiny_1[^]*2 tables equal/) });
      // Nothing compared would be nothing proved.
      for (const [flags, near] of [[['--include-databases', 'shpo'], 'Did you mean "shop"?'], [['--tables', 'jnuk'], 'shop.public.junk']] as const) {
        expect(await runCli(['verify', ...ends, ...flags])).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining(near) });
      }
      for (const command of [['switchover'], ['follow'], ['table', 't']]) {
        expect(await runCli([...command, ...ends])).toMatchObject({ code: 2, stderr: expect.stringContaining(`pgweave ${command.join(' ')} --job ${job}_tiny_1`) });
      }
    } finally {
      expect(await runCli(['cleanup', ...ends])).toMatchObject({ code: 0, stdout: expect.stringMatching(/database shop[^]*4 removed[^]*database tiny_1[^]*4 removed/) });
      for (const name of ['shop', 'tiny_1']) await query(to, 'postgres', `drop database ${name}`);
    }
    expect(await query(from, 'postgres', 'select 1 from pg_replication_slots')).toEqual([]);
    expect(existsSync(join(folder.path, 'instance.json'))).toBe(false);
  });

  it('is one command: a job a database, one that fails does not stop the rest, and a rerun does what is left', async () => {
    using folder = stateFolder();
    // crm cannot be copied yet: the target has a table of that name.
    await query(to, 'postgres', 'create database crm');
    await query(to, 'crm', 'create table public.t (other int)');
    const args = ['clone', '--all-databases', '--exclude-databases', 'tiny_2', '--exclude-tables', '"Über 1".junk,crm.junk,shop.junk,"a.b".junk,tiny_1.junk', '--source', from.uri('shop'), '--target', to.uri('postgres'), '--job', 'default', '--dir', folder.path, '--yes', '--jobs', '1'];
    const first = await runCli(args);
    expect(first).toMatchObject({ code: 1, stdout: expect.stringContaining('1 of 20 databases failed: crm') });
    expect(first.stdout).toContain('shop (job shop):');
    for (const name of names.filter((n) => n !== 'crm' && n !== 'tiny_2')) {
      expect(await query(to, name, `select (select count(*)::int from public.t) as n, to_regclass('public.junk')::text as junk`)).toEqual([{ n: 10 + names.indexOf(name), junk: name.startsWith('more_') ? 'public.junk' : null }]);
    }
    expect(await query(to, 'postgres', `select count(*)::int as n from pg_roles where rolname = 'app'`)).toEqual([{ n: 1 }]);
    await query(to, 'crm', 'drop table public.t');
    // The scope has changed meanwhile: what came is taken, what went is told.
    await query(from, 'postgres', 'create database late_1');
    await query(from, 'postgres', 'drop database more_14');
    const second = await runCli(args);
    expect(`${second.stderr}${second.code}`).toMatch(/0$/);
    expect(second.stdout.match(/done by an earlier run/g)).toHaveLength(18);
    expect(second.stderr).toContain('new since the job began: late_1');
    expect(second.stderr).toContain('no longer part of the job: more_14');
    expect(await query(to, 'postgres', `select datname from pg_database where datname in ('late_1', 'more_14')`)).toHaveLength(2);
    expect(await query(to, 'crm', 'select count(*)::int as n from public.t')).toEqual([{ n: 12 }]);
    expect(await query(to, 'postgres', `select 1 from pg_database where datname = 'tiny_2'`)).toEqual([]);
    expect(await runCli([...args, '--no-resume', '--exclude-tables', 'jnuk'])).toMatchObject({ code: 2, stderr: expect.stringContaining('jnuk') });
    const status = await runCli(['status', '--dir', folder.path]);
    expect(status.stdout).toMatch(/database Über 1\nÜber 1: .* done .*/);
    expect(status.stdout).not.toContain('pgweave follow');
  });

  it('asks on a terminal: databases, tables to leave out, a summary, a last word', async () => {
    using folder = stateFolder();
    const main = resolve(import.meta.dirname, 'main.ts');
    const command = [process.execPath, '--import', import.meta.resolve('tsx'), main, 'clone', '--source', from.uri('tiny_2'), '--target', to.uri('postgres'), '--dir', folder.path].map((word) => `'${word}'`).join(' ');
    await query(to, 'postgres', 'create table if not exists public.unrelated (id int)');
    const ask = () => {
      const clean = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(PG|PGWEAVE_|VITEST|NODE_OPTIONS|CI$)/.test(name)));
      const child = spawn('script', ['-qfec', `stty cols 120 rows 40; ${command}`, '/dev/null'], { env: { ...clean, TERM: 'xterm', COLUMNS: '120', LINES: '40' }, stdio: ['pipe', 'pipe', 'inherit'] });
      let seen = '';
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        seen += text;
      });
      const done = new Promise<number | null>((end) => child.once('close', end));
      const after = async (text: string, keys: string) => {
        await waitFor(`"${text}" on the terminal, after ${JSON.stringify(seen.slice(-600))}`, () => seen.includes(text));
        seen = seen.slice(seen.indexOf(text) + text.length);
        child.stdin.write(keys);
      };
      return { done, after };
    };
    const turnedBack = ask();
    await turnedBack.after('Databases (space', '\r');
    await turnedBack.after('Tables of tiny_2', '\r');
    await turnedBack.after('Go on with', 'n');
    expect(await turnedBack.done).toBe(130);
    expect(await query(to, 'postgres', `select 1 from pg_tables where schemaname = 'public' and tablename = 't'`)).toEqual([]);

    const gone = ask();
    await gone.after('Databases (space', '\r');
    // Typing narrows the list to what is to be left out; Tab marks it.
    await gone.after('Tables of tiny_2', 'junk');
    await gone.after('(1 match)', '\t');
    await gone.after('◼', '\r');
    await gone.after('without public.junk', '');
    await gone.after('Go on with', 'y');
    expect(await gone.done).toBe(0);
    expect(await query(to, 'postgres', `select (select count(*)::int from public.t) as n, to_regclass('public.junk') as junk`)).toEqual([{ n: 15, junk: null }]);
  });
});
