import { chmodSync, chownSync, copyFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { privateServer, type Cluster } from '../../test/support/servers.ts';
import { errorText } from '../cli/common.ts';
import { parseConninfo } from './conninfo.ts';
import { Session } from './session.ts';

const tls = join(import.meta.dirname, '../../test/support/tls');
const password = 's3cr3t & word/%';
let server: Cluster;

beforeAll(async () => {
  server = await privateServer(15);
  for (const name of ['server.crt', 'server.key', 'ca.crt']) {
    const copy = join(server.dataFolder, name);
    copyFileSync(join(tls, name), copy);
    const { uid, gid } = statSync(server.dataFolder);
    chownSync(copy, uid, gid);
    chmodSync(copy, 0o600);
  }
  await using admin = await Session.open(parseConninfo(server.uri()), { role: 'test' });
  const quoted = password.replaceAll("'", "''");
  await admin.query(`set password_encryption = 'scram-sha-256'; create role scram login replication password '${quoted}'`);
  await admin.query(`set password_encryption = 'md5'; create role old_md5 login password '${quoted}'`);
  await admin.query('create role certified login; create role tls_only login');
  server.configure({ ssl: 'on', ssl_cert_file: "'server.crt'", ssl_key_file: "'server.key'", ssl_ca_file: "'ca.crt'" });
  server.setHba(
    [
      'local all all trust', 'host all postgres 127.0.0.1/32 trust', 'host all scram 127.0.0.1/32 scram-sha-256', 'host all scram ::1/128 scram-sha-256', 'host replication scram 127.0.0.1/32 scram-sha-256',
      'host all old_md5 127.0.0.1/32 md5', 'hostssl all certified all cert', 'hostssl all tls_only all trust',
    ].join('\n'),
  );
  await server.restart();
});
afterAll(() => server.destroy());

const open = (parameters: string, replication = false) => Session.open(parseConninfo(`host=127.0.0.1 port=${server.port} dbname=postgres ${parameters}`, { HOME: '/nonexistent' }), { role: 'test', side: 'the source', replication });
const secret = `password='${password}'`;
async function usesTls(parameters: string, replication = false): Promise<boolean> {
  await using session = await open(parameters, replication);
  await using admin = await Session.open(parseConninfo(server.uri()), { role: 'test' });
  return (await admin.one<{ ssl: boolean }>('select ssl from pg_stat_ssl where pid = $1', [session.pid])).ssl;
}

describe('authentication and TLS', () => {
  it.each(['scram', 'old_md5'])('logs in as %s with a password that needs quoting', async (role) => {
    await using session = await open(`user=${role} ${secret}`);
    expect((await session.one<{ me: string }>('select current_user as me')).me).toBe(role);
  });

  it('names the place a wrong password came from, and not the password', async () => {
    const error = await open('user=scram password=wrong-pass-9').then(() => undefined, (e: unknown) => e);
    expect(error).toMatchObject({ code: 'authentication-failed', exitCode: 1 });
    const shown = errorText(error);
    expect(shown).toContain('The password came from the connection string');
    expect(shown).not.toContain('wrong-pass-9');
    expect(await open('user=scram').then(() => undefined, (e: unknown) => e)).toMatchObject({ code: 'authentication-failed', hint: expect.stringContaining('No password was given') });
  });

  it.each([['disable', false], ['allow', false], ['prefer', true], ['require', true]] as const)('sslmode=%s: TLS %s', async (mode, expected) => {
    expect(await usesTls(`user=scram ${secret} sslmode=${mode}`)).toBe(expected);
  });

  it('allow: turns to TLS where plain connections are not let in', async () => {
    expect(await usesTls('user=tls_only sslmode=allow')).toBe(true);
  });

  it('verifies the chain, and with verify-full the name, on SQL and replication connections alike', async () => {
    const ca = `sslrootcert=${join(tls, 'ca.crt')}`;
    const other = `sslrootcert=${join(tls, 'other-ca.crt')}`;
    for (const replication of [false, true]) {
      const login = `user=scram ${secret}`;
      expect(await usesTls(`${login} sslmode=verify-ca ${ca}`, replication)).toBe(true);
      await expect(open(`${login} sslmode=verify-ca ${other}`, replication)).rejects.toMatchObject({ code: 'tls-failed' });
      await expect(open(`${login} sslmode=require ${other}`, replication)).rejects.toMatchObject({ code: 'tls-failed' });
      await expect(open(`${login} sslmode=verify-full ${ca}`, replication)).rejects.toMatchObject({ code: 'tls-failed' });
      await using session = await Session.open({ ...parseConninfo(`host=127.0.0.1 port=${server.port} dbname=postgres ${login} sslmode=verify-full ${ca}`), hosts: [{ host: 'localhost', port: server.port }] }, { role: 'test', replication });
      expect(session.host.host).toBe('localhost');
    }
    await expect(open(`user=scram ${secret} sslmode=verify-ca sslrootcert=/no/such/file`)).rejects.toMatchObject({ code: 'tls-file', exitCode: 2 });
  });

  it('shows a client certificate', async () => {
    await using session = await open(`user=certified sslmode=require sslcert=${join(tls, 'client.crt')} sslkey=${join(tls, 'client.key')}`);
    expect((await session.one<{ me: string }>('select current_user as me')).me).toBe('certified');
    await expect(open('user=certified sslmode=require')).rejects.toMatchObject({ code: expect.stringMatching(/authentication-failed|not-admitted/) });
  });

  it('goes on to the next host, and finds the one that takes writes', async () => {
    const spec = parseConninfo(`host=127.0.0.1,127.0.0.1 port=1,${server.port} dbname=postgres user=postgres target_session_attrs=read-write`);
    await using session = await Session.open(spec, { role: 'test' });
    expect(session.host.port).toBe(server.port);
    await expect(Session.open({ ...spec, targetSessionAttrs: 'standby' }, { role: 'test' })).rejects.toMatchObject({ code: 'no-such-server' });
  });

  it('says which line of pg_hba.conf is missing', async () => {
    await expect(open('user=nobody_let_in sslmode=disable')).rejects.toMatchObject({ code: 'not-admitted', hint: expect.stringContaining('pg_hba.conf') });
  });
});
