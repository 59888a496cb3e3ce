import { chmodSync, chownSync, copyFileSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { dropSinkRoles, kitchenSink } from '../../test/support/kitchen-sink.ts';
import { createDatabase, embeddedVersions, privateServer, sharedServer } from '../../test/support/servers.ts';
import { PgweaveError } from '../core/errors.ts';
import { parseConninfo } from '../pg/conninfo.ts';
import { Session } from '../pg/session.ts';
import { dumpSchema } from './dump.ts';
import { planSchema } from './statements.ts';
import { systemDumpers } from './system-dump.ts';

const prefix = `dump${process.pid}`;
const tls = join(import.meta.dirname, '../../test/support/tls');

afterAll(async () => {
  for (const version of embeddedVersions) {
    await using session = await Session.open(parseConninfo((await sharedServer(version)).uri()), { role: 'test' });
    await session.query(dropSinkRoles(prefix));
  }
});

/** Which word ALTER … OWNER takes for views and sequences, ONLY for foreign tables, and a doubled space changed between versions of pg_dump. */
function wording(sql: string): string {
  return sql.replace(/  +/g, ' ').replace(/^ALTER (?:TABLE|VIEW|SEQUENCE|MATERIALIZED VIEW|FOREIGN TABLE)(?: ONLY)? /, 'ALTER ');
}

const thrown = (work: Promise<unknown>): Promise<unknown> => work.then(() => 'nothing was thrown', (error: unknown) => error);

describe('dumpSchema', () => {
  it.each(embeddedVersions)('reads a database of every kind of object from %i, with either dumper', async (version) => {
    await using database = await createDatabase(await sharedServer(version), 'dump');
    await database.run(kitchenSink({ version, rolePrefix: prefix }));
    await using source = await Session.open(database.spec, { role: 'test' });
    const bundled = await dumpSchema({ source, dumper: 'bundled' });
    expect(bundled.dumper).toBe('bundled pg_dump 18');
    const statements = async (text: string) => {
      const plan = await planSchema(text);
      // Sorted: default privileges come in the order of their oids, which differs.
      return [...plan.preData, ...plan.indexes, ...plan.attach, ...plan.foreignKeys, ...plan.postData].map((statement) => wording(statement.sql)).toSorted((a, b) => (a < b ? -1 : 1));
    };
    const expected = await statements(bundled.text);
    expect(expected.length).toBeGreaterThan(600);
    expect(bundled.text).toContain('\n\\unrestrict fake');
    // A machine without a new enough PostgreSQL has the bundled dumper alone.
    const system = await dumpSchema({ source, dumper: 'system' }).catch((error: unknown) => {
      if (!(error instanceof PgweaveError) || error.code !== 'no-pg-dump') throw error;
      return bundled;
    });
    expect(await statements(system.text)).toEqual(expected);
    const [newest] = await systemDumpers();
    expect(system === bundled).toBe(newest === undefined || newest.major < version);
  });

  it('reads in the snapshot it is given, and leaves out our own schema', async () => {
    await using database = await createDatabase(await sharedServer(15), 'dump');
    await database.run('create table early (a int); create schema pgweave; create table pgweave.ledger (a int)');
    const holder = await database.session();
    await holder.query('begin isolation level repeatable read');
    const { id } = await holder.one<{ id: string }>('select pg_catalog.pg_export_snapshot() as id');
    await database.run('create table late (a int)');
    for (const dumper of ['auto', 'bundled'] as const) {
      const { text } = await dumpSchema({ source: holder, snapshot: id, dumper });
      expect(text).toContain('"early"');
      expect(text).not.toContain('"late"');
      expect(text).not.toContain('pgweave');
    }
  });

  it('says what to do about a missing privilege and a snapshot that is gone', async () => {
    const server = await sharedServer(17);
    await using database = await createDatabase(server, 'dump');
    const role = `${prefix}_poor`;
    await database.run(`create role ${role} login; create table hidden_away (a int)`);
    try {
      await using poor = await Session.open({ ...database.spec, user: role }, { role: 'test' });
      await expect(dumpSchema({ source: poor })).rejects.toMatchObject({ code: 'dump-failed', message: expect.stringContaining('permission denied'), hint: expect.stringContaining('hidden_away') });
      await using source = await Session.open(database.spec, { role: 'test' });
      await expect(dumpSchema({ source, snapshot: '00000003-00000BAD-1' })).rejects.toMatchObject({ code: 'dump-failed', hint: expect.stringContaining('snapshot') });
    } finally {
      await database.run(`drop role ${role}`);
    }
  });

  it('stops when asked, and reports a connection that was cut, with the bundled dumper', async () => {
    await using database = await createDatabase(await sharedServer(16), 'dump');
    await database.run('create table locked (a int)');
    await using source = await Session.open(database.spec, { role: 'test' });
    const locker = await database.session();
    await locker.query('begin; lock table locked in access exclusive mode');
    // From another session: within a transaction the view stands still.
    const waiting = async () => (await database.query<{ pid: number }>(`select pid from pg_catalog.pg_stat_activity where datname = $1 and application_name like '%dump' and wait_event_type = 'Lock'`, [database.name])).map((row) => row.pid);

    const cut = thrown(dumpSchema({ source, dumper: 'bundled' }));
    await expect.poll(async () => (await waiting()).length, { timeout: 60_000 }).toBe(1);
    await locker.query('select pg_catalog.pg_terminate_backend(pid) from pg_catalog.unnest($1::int[]) pid', [await waiting()]);
    expect(await cut).toMatchObject({ code: expect.stringMatching(/^(connection-lost|dump-failed)$/) });

    const abort = new AbortController();
    const stopped = thrown(dumpSchema({ source, dumper: 'bundled', signal: abort.signal }));
    await expect.poll(async () => (await waiting()).length, { timeout: 60_000 }).toBe(1);
    abort.abort();
    expect(await stopped).toMatchObject({ code: 'interrupted', exitCode: 130 });
    await locker.query('rollback');
  });
});

describe('a password', () => {
  let folder: string;
  const path = process.env['PATH'];
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'pgweave-fake-dump-'));
    // A newest pg_dump of our own, which writes down how it was called.
    writeFileSync(join(folder, 'pg_dump'), `#!/bin/sh\nif [ "$1" = --version ]; then echo "pg_dump (PostgreSQL) 99.1"; exit 0; fi\nprintf '%s\\n' "$@" > '${folder}/arguments'\nenv > '${folder}/environment'\necho 'SELECT 1;'\n`);
    chmodSync(join(folder, 'pg_dump'), 0o755);
    process.env['PATH'] = `${folder}:${path}`;
  });
  afterAll(() => {
    process.env['PATH'] = path;
    rmSync(folder, { recursive: true, force: true });
  });

  it('reaches the system\'s pg_dump by environment, never by arguments; the bundled one needs none, with TLS too', async () => {
    await using server = await privateServer(15, { hba: 'local all all trust\nhostssl all all all scram-sha-256\n' });
    for (const name of ['server.crt', 'server.key']) {
      const copy = join(server.dataFolder, name);
      copyFileSync(join(tls, name), copy);
      const { uid, gid } = statSync(server.dataFolder);
      chownSync(copy, uid, gid);
      chmodSync(copy, 0o600);
    }
    server.configure({ ssl: 'on', ssl_cert_file: "'server.crt'", ssl_key_file: "'server.key'" });
    await server.restart();
    await using admin = await Session.open(parseConninfo(`host=${server.folder} port=${server.port} user=postgres dbname=postgres`), { role: 'test' });
    await admin.query(`alter role postgres password 'dump secret/77'; create table public.t (a int)`);
    await using source = await Session.open(parseConninfo(`host=localhost port=${server.port} user=postgres dbname=postgres sslmode=verify-full sslrootcert='${join(tls, 'ca.crt')}' password='dump secret/77'`), { role: 'test' });
    const system = await dumpSchema({ source, job: 'shop' });
    expect(system).toEqual({ text: 'SELECT 1;\n', dumper: `pg_dump 99.1 (${join(folder, 'pg_dump')})` });
    expect(readFileSync(join(folder, 'arguments'), 'utf8')).not.toContain('secret');
    const environment = readFileSync(join(folder, 'environment'), 'utf8');
    for (const line of ['PGPASSWORD=dump secret/77', `PGPORT=${server.port}`, 'PGHOST=localhost', 'PGDATABASE=postgres', 'PGSSLMODE=verify-full', `PGSSLROOTCERT=${join(tls, 'ca.crt')}`, 'PGAPPNAME=pgweave shop dump']) expect(environment.split('\n')).toContain(line);
    expect((await dumpSchema({ source, dumper: 'bundled' })).text).toContain('CREATE TABLE "public"."t"');
  });
});
