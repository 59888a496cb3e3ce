import { describe, expect, it } from 'vitest';
import { createDatabase, embeddedVersions, sharedServer } from '../../test/support/servers.ts';
import { parseConninfo } from './conninfo.ts';
import { Session } from './session.ts';

describe('Session', () => {
  it.each(embeddedVersions)('connects to %i with timeouts off and bytes pinned', async (version) => {
    await using database = await createDatabase(await sharedServer(version), 'session');
    await database.run(`alter database "${database.name}" set statement_timeout = '1ms'; alter database "${database.name}" set datestyle = 'German'`);
    await using session = await Session.open(database.spec, { role: 'copy-1', job: 'shop' });
    const row = await session.one(`select current_setting('statement_timeout') as timeout, current_setting('search_path') as path, date '2026-02-01' as day, current_setting('application_name') as name, 9007199254740993::int8 as big, array['a','b,"c', null] as list`);
    expect(row).toEqual({ timeout: '0', path: '""', day: '2026-02-01', name: 'pgweave shop copy-1', big: 9007199254740993n, list: ['a', 'b,"c', null] });
    expect(Math.floor(session.serverVersion / 10_000)).toBe(version);
  });

  it('cancels the running statement when its signal fires', async () => {
    const server = await sharedServer(15);
    const abort = new AbortController();
    await using session = await Session.open(parseConninfo(server.uri()), { role: 'test', signal: abort.signal });
    const pid = session.pid;
    const running = session.query('select pg_sleep(600)').then(() => undefined, (error: unknown) => error);
    abort.abort();
    expect(await running).toMatchObject({ code: 'interrupted', exitCode: 130 });
    await using other = await Session.open(parseConninfo(server.uri()), { role: 'test' });
    await expect.poll(async () => (await other.query(`select 1 from pg_stat_activity where pid = ${pid} and state = 'active' and query like 'select pg_sleep%'`)).length, { timeout: 20_000 }).toBe(0);
  });

  it('says what to do about a port where nothing listens, a missing database and a missing role', async () => {
    const server = await sharedServer(15);
    await expect(Session.open(parseConninfo('postgresql://x@127.0.0.1:1/x'), { role: 'test', side: 'the source' })).rejects.toMatchObject({ code: 'connection-refused', exitCode: 1, message: expect.stringContaining('the source') });
    await expect(Session.open(parseConninfo(server.uri('no_such_db')), { role: 'test' })).rejects.toMatchObject({ code: 'no-such-database' });
    await expect(Session.open(parseConninfo(server.uri('postgres', 'nobody_here')), { role: 'test' })).rejects.toMatchObject({ code: 'authentication-failed', hint: expect.stringContaining('create that role') });
    await expect(Session.open(parseConninfo('postgresql://x@no-such-host.invalid/x'), { role: 'test' })).rejects.toMatchObject({ code: 'no-such-host' });
  });

  it('connects through a unix socket', async () => {
    const server = await sharedServer(15);
    await using session = await Session.open(parseConninfo(`host=${server.socketFolder} port=${server.port} user=postgres dbname=postgres`), { role: 'test' });
    expect((await session.one<{ addr: string | null }>('select inet_client_addr() as addr')).addr).toBeNull();
  });

  it('opens replication connections', async () => {
    const server = await sharedServer(16);
    await using session = await Session.open(parseConninfo(server.uri()), { role: 'walsender', replication: true });
    expect((await session.query<{ dbname: string }>('IDENTIFY_SYSTEM'))[0]!.dbname).toBe('postgres');
  });
});
