import { existsSync } from 'node:fs';
import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import { clone, planClone } from '../../src/workflows/clone.ts';
import { parseConninfo } from '../../src/pg/conninfo.ts';
import { rowDigests } from '../support/database-contents.ts';
import { runCli, startCli, stateFolder } from '../support/cli.ts';
import { createDatabase, privateServer, sharedServer, waitFor } from '../support/servers.ts';
import { TcpProxy } from '../support/tcp-proxy.ts';

const someTables = `create table a (id int primary key, t text); insert into a select i, repeat('a', 100) from generate_series(1, 20000) i; create table b (id int primary key, a int references a); insert into b select i, i from generate_series(1, 100) i`;

/** On the target: each new table `a` gets a trigger that does something at its 10,000th row, also while rows are copied. */
const hurdle = (action: string) => `
  create schema hurdle; create function hurdle.act() returns trigger language plpgsql as $$ begin if new.id = 10000 then ${action}; end if; return new; end $$;
  create function hurdle.on_table() returns event_trigger language plpgsql as $$ begin if exists (select from pg_catalog.pg_event_trigger_ddl_commands() where object_identity = 'public.a' and command_tag = 'CREATE TABLE') then
    create trigger hurdle before insert on public.a for each row execute function hurdle.act(); alter table public.a enable always trigger hurdle; end if; end $$;
  create event trigger hurdle on ddl_command_end execute function hurdle.on_table()`;
const noHurdle = 'drop event trigger hurdle; drop schema hurdle cascade';

describe('bad input', () => {
  it('is refused by the command line with a hint, an exit code and no stack trace', async () => {
    const server = await sharedServer(15);
    await using source = await createDatabase(server, 'bad');
    using dir = stateFolder();
    const run = (...args: string[]) => runCli(['clone', '--dir', dir.path, ...args]);
    const target = ['--target', server.uri('no_such_database')];
    const all = await Promise.all([
      run('--source', source.uri, ...target, '--no-such-flag'), run('--source', 'postgresql://a:b:c@h/d?x', ...target), run('--source', source.uri, ...target, '--jobs', 'many'), run('--source', source.uri, '--target', source.uri), run('--source', source.uri, ...target, '--follow', '--sync'),
    ]);
    expect(all.map((r) => [r.code, r.stderr])).toEqual([
      [2, expect.stringContaining('--no-such-flag')], [2, expect.stringContaining('malformed connection URI')], [2, expect.stringContaining('not a number of jobs')], [2, expect.stringContaining('same database')], [2, expect.stringContaining('exclude one another')],
    ]);
    for (const r of all) expect(r.stderr + r.stdout).not.toMatch(/\n\s+at /);
  });

  it('names the database that is not there, the password that is wrong and the host that nobody knows', async () => {
    await using server = await privateServer(15, { hba: 'local all all trust\nhost all app 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n' });
    await using source = await createDatabase(server, 'who');
    await source.run(`create role app login password 'right-one'`);
    const attempt = (uri: string) => clone({ source: source.spec, target: parseConninfo(uri), roles: false });
    await expect(attempt(server.uri('nowhere'))).rejects.toMatchObject({ code: 'no-such-database', hint: expect.stringContaining('Create it') });
    const wrong: unknown = await attempt(server.uri('postgres', 'app', 'wrong-one')).catch((e: unknown) => e);
    expect(wrong).toMatchObject({ code: 'authentication-failed', message: expect.stringContaining('the target') });
    expect(inspect(wrong, { depth: 10 })).not.toContain('wrong-one');
    await expect(attempt('postgresql://app@no-such-host.invalid/x')).rejects.toMatchObject({ code: 'no-such-host' });
  });

  it('refuses a target with tables of the same name, drops them when it may, and keeps others', async () => {
    const server = await sharedServer(16);
    await using source = await createDatabase(server, 'full');
    await using target = await createDatabase(server, 'full');
    await source.run(`${someTables}; create schema s; create type s.mood as enum ('x'); create function s.f(m s.mood) returns int language sql as 'select 1'; create view v as select * from a; create sequence q`);
    await target.run(`create table a (other int); create view v as select * from a; create table mine (id int); insert into mine values (1); create schema s; create type s.mood as enum ('y'); create function s.f(m s.mood) returns text language sql as 'select 1::text'; create sequence q`);
    const ends = { source: source.spec, target: target.spec, roles: false };
    await expect(clone(ends)).rejects.toMatchObject({ code: 'target-not-empty', message: expect.stringContaining('public.a'), hint: expect.stringContaining('--drop-existing') });
    // Nothing was written.
    expect(await target.query(`select from pg_namespace where nspname = 'pgweave'`)).toEqual([]);
    expect((await planClone(ends)).existing).toEqual(['public.a', 'public.q', 'public.v']);
    await clone({ ...ends, dropExisting: true });
    const { ['public.mine']: mine, ...rest } = await rowDigests(target);
    expect(mine).toMatch(/^1 /);
    expect(rest).toEqual(await rowDigests(source));
    // Done is done; only --no-resume begins anew.
    expect(await clone({ ...ends, dropExisting: true })).toMatchObject({ alreadyDone: true });
    await source.run('insert into b values (1000, 1)');
    expect(await clone({ ...ends, dropExisting: true, resume: false })).toMatchObject({ alreadyDone: false, resumed: false });
    expect(await target.query('select from b where id = 1000')).toHaveLength(1);
  });

  it('binds nobody to the databases of a run that was refused', { timeout: 300_000 }, async () => {
    await using server = await privateServer(16, { hba: 'local all all trust\nhost all app 127.0.0.1/32 scram-sha-256\nhost all postgres 127.0.0.1/32 trust\n' });
    await using source = await createDatabase(server, 'slip');
    await using full = await createDatabase(server, 'slip_full');
    await using target = await createDatabase(server, 'slip');
    await source.run(`${someTables}; create role app superuser login password 'of-app'`);
    await full.run('create table a (id int)');
    using dir = stateFolder();
    // The folder keeps no passwords.
    const as = (database: { name: string }) => server.uri(database.name, 'app', 'of-app');
    const run = (to: { name: string }, ...more: string[]) => runCli(['clone', '--source', as(source), '--target', as(to), '--dir', dir.path, ...more]);
    expect(await run(source)).toMatchObject({ code: 2, stderr: expect.stringContaining('same database') });
    // What the refused run was to leave out is no rule of the next.
    expect(await run(full, '--exclude-tables', 'b')).toMatchObject({ code: 1, stderr: expect.stringContaining('Give an empty database as --target') });
    expect(await run(target)).toMatchObject({ code: 0, stdout: expect.stringContaining('2 tables') });
    // Now it has begun.
    expect(await run(full)).toMatchObject({ code: 2, stderr: expect.stringContaining('begun with other databases') });
    expect(await runCli(['cleanup', '--target', as(target), '--source', as(source), '--dir', dir.path, '--yes'])).toMatchObject({ code: 0 });
    expect(await run(full)).toMatchObject({ code: 1 });
    // Nothing is left of it but its folder.
    expect(await runCli(['cleanup', '--target', as(full), '--source', as(source), '--dir', dir.path])).toMatchObject({ code: 0, stdout: expect.stringContaining('Nothing of job default is left') });
    expect(existsSync(dir.path)).toBe(false);
  });

  it('says what a role may not do', async () => {
    const server = await sharedServer(17);
    await using source = await createDatabase(server, 'may');
    await using target = await createDatabase(server, 'may');
    const role = source.name;
    await source.run(`${someTables}; create role ${role} login`);
    try {
      const as = (database: { name: string }) => parseConninfo(server.uri(database.name, role));
      await expect(clone({ source: source.spec, target: as(target), roles: false })).rejects.toMatchObject({ code: 'pgweave-schema-privilege', hint: expect.stringContaining('grant create on database') });
      await expect(clone({ source: as(source), target: target.spec, roles: false })).rejects.toMatchObject({ hint: expect.any(String) });
      await expect(clone({ source: as(source), target: target.spec, roles: false, mode: 'follow', job: role, resume: false })).rejects.toMatchObject({ code: 'may-not-publish' });
    } finally {
      await source.run(`drop role ${role}`);
    }
  });
});

describe('a copy that breaks', () => {
  it('disk-full: ends with what to do, and goes on once there is room', async () => {
    const server = await sharedServer(16);
    await using source = await createDatabase(server, 'disk');
    await using target = await createDatabase(server, 'disk');
    await source.run(someTables);
    // A real error of the server in mid-copy.
    await target.run(hurdle(`raise exception 'could not extend file: No space left on device' using errcode = '53100'`));
    const ends = { source: source.spec, target: target.spec, roles: false, jobs: 1 };
    await expect(clone(ends)).rejects.toMatchObject({ code: 'disk-full', exitCode: 1, hint: expect.stringContaining('run the same command again') });
    expect(await target.query('select from a')).toEqual([]);
    await target.run(noHurdle);
    expect(await clone(ends)).toMatchObject({ resumed: true });
    expect(await rowDigests(target)).toEqual(await rowDigests(source));
  });

  it.each(['source', 'target'] as const)('connection-lost: a connection to the %s that breaks in mid-copy is made again', async (side) => {
    await using source = await createDatabase(await sharedServer(15), 'cut');
    await using target = await createDatabase(await sharedServer(18), 'cut');
    await source.run(someTables);
    await using proxy = await TcpProxy.start((side === 'source' ? source : target).spec.hosts[0]!.port);
    const through = { hosts: [{ host: '127.0.0.1', port: proxy.port }] };
    const ends = { source: side === 'source' ? { ...source.spec, ...through } : source.spec, target: side === 'target' ? { ...target.spec, ...through } : target.spec, roles: false, jobs: 1, format: 'text' as const };
    const pieces: number[] = [];
    await clone({
      ...ends,
      onEvent: (e) => {
        // From here on only copies move a megabyte over one connection.
        if (e.type === 'tables-planned') proxy.cutNext(1_000_000);
        if (e.type === 'copy-part' && e.status === 'started') pieces.push(e.part);
      },
    });
    expect(proxy.cuts).toBe(1);
    expect(await rowDigests(target)).toEqual(await rowDigests(source));
  });

  it('restarted-target: a target that goes down and comes back is waited for', async () => {
    await using server = await privateServer(16);
    await using source = await createDatabase(await sharedServer(16), 'restart');
    await using target = await createDatabase(server, 'restart');
    await source.run(someTables);
    let restarted: Promise<void> | undefined;
    const told: string[] = [];
    await clone({
      source: source.spec, target: target.spec, roles: false, jobs: 1,
      onEvent: (e) => {
        if (e.type === 'copy-part' && e.status === 'started') restarted ??= server.restart();
        if (e.type === 'log' && e.level === 'warn') told.push(e.message);
      },
    });
    await restarted;
    expect(told).toContainEqual(expect.stringMatching(/^public\.[ab]: .*; trying again$/));
    expect(await rowDigests(target)).toEqual(await rowDigests(source));
  });

  it('ctrl-c: ends with 130, says how to go on, and the same command does', async () => {
    const server = await sharedServer(16);
    await using source = await createDatabase(server, 'ctrlc');
    await using target = await createDatabase(server, 'ctrlc');
    using dir = stateFolder();
    await source.run(someTables);
    await target.run(hurdle('perform pg_advisory_xact_lock(42)'));
    const locker = await target.session();
    await locker.query('select pg_advisory_lock(42)');
    const args = ['clone', '--source', source.uri, '--target', target.uri, '--dir', dir.path, '--no-roles'];
    const run = startCli(args);
    await waitFor('the copy to stand still', async () => run.child.exitCode !== null || (await target.query(`select from pg_stat_activity where application_name = 'pgweave default copy' and wait_event_type = 'Lock' and datname = current_database()`)).length > 0, 120_000);
    run.child.kill('SIGINT');
    const ended = await run.done;
    expect([ended.code, ended.stderr]).toEqual([130, expect.stringContaining('Go on with the same command')]);
    await locker.query('select pg_advisory_unlock(42)');
    const again = await runCli(args);
    expect([again.code, again.stdout]).toEqual([0, expect.stringContaining('2 tables')]);
    await target.run(noHurdle);
    expect(await rowDigests(target)).toEqual(await rowDigests(source));
  });
});
