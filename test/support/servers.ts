import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { sleep } from '../../src/core/abort.ts';
import { parseConninfo, type ConnectionSpec } from '../../src/pg/conninfo.ts';
import { quoteIdent } from '../../src/pg/identifiers.ts';
import { Session } from '../../src/pg/session.ts';
import { embeddedVersions, type EmbeddedVersion } from '../../src/servers/binaries.ts';
import { startCluster, type Cluster, type ClusterOptions } from '../../src/servers/cluster.ts';

export { embeddedVersions, type EmbeddedVersion, type Cluster };

/** A server that all test files of a run share: make databases of your own in it, give roles and slots names of your own, never stop it. */
export interface SharedServer {
  readonly version: EmbeddedVersion;
  readonly port: number;
  readonly socketFolder: string;
  uri(database?: string, user?: string, password?: string): string;
}

/** The shared server of a major version; started by whoever asks first. wal_level is logical. */
export async function sharedServer(version: EmbeddedVersion): Promise<SharedServer> {
  const run = process.env['PGWEAVE_TEST_RUN'];
  if (!run) throw new Error('run these tests with vitest: its global setup makes the folder for shared servers');
  const ready = join(run, `ready-${version}.json`);
  let mine = false;
  try {
    mkdirSync(join(run, `lock-${version}`));
    mine = true;
  } catch {
    // Another test file starts it.
  }
  if (mine) {
    const cluster = await startCluster({ version, parent: run, template: true, settings: { max_wal_senders: '80', max_replication_slots: '80', max_connections: '300', max_worker_processes: '80', max_logical_replication_workers: '40' } });
    writeFileSync(`${ready}.tmp`, JSON.stringify({ port: cluster.port, folder: cluster.folder }));
    renameSync(`${ready}.tmp`, ready);
  }
  for (let waited = 0; !existsSync(ready); waited += 20) {
    if (waited > 90_000) throw new Error(`the shared server ${version} did not start`);
    await sleep(20);
  }
  const { port, folder } = JSON.parse(readFileSync(ready, 'utf8')) as { port: number; folder: string };
  return {
    version, port, socketFolder: folder,
    uri: (database = 'postgres', user = 'postgres', password) => `postgresql://${encodeURIComponent(user)}${password === undefined ? '' : `:${encodeURIComponent(password)}`}@127.0.0.1:${port}/${encodeURIComponent(database)}`,
  };
}

/** A server for one test alone, for tests that stop, kill or configure it. Always `await using`, or destroy it in afterAll. */
export function privateServer(version: EmbeddedVersion, options: Omit<ClusterOptions, 'version'> = {}): Promise<Cluster> {
  return startCluster({ version, template: true, ...options });
}

export interface TestDatabase extends AsyncDisposable {
  readonly name: string;
  readonly uri: string;
  readonly spec: ConnectionSpec;
  /** Opens a session; closed with the database. */
  session(): Promise<Session>;
  /** Runs statements in a session of their own. */
  run(sql: string): Promise<void>;
  /** Rows of one query, in a session of their own. */
  query<Row extends object = Record<string, unknown>>(sql: string, values?: readonly unknown[]): Promise<Row[]>;
  /** Ends what is connected, drops slots and subscriptions of this database, drops the database. */
  drop(): Promise<void>;
}

let counter = 0;

/** A fresh database on a server. `options` go into CREATE DATABASE. Dropped by `await using` or `drop()`. */
export async function createDatabase(server: SharedServer | Cluster, name = 'db', options = ''): Promise<TestDatabase> {
  counter += 1;
  const unique = `${name}_${process.pid}_${counter}`;
  const admin = parseConninfo(server.uri('postgres'));
  const withAdmin = async (work: (session: Session) => Promise<unknown>) => {
    await using session = await Session.open(admin, { role: 'test' });
    await work(session);
  };
  await withAdmin((s) => s.query(`create database ${quoteIdent(unique)} ${options}`));
  const uri = server.uri(unique);
  const spec = parseConninfo(uri);
  const sessions: Session[] = [];
  const database: TestDatabase = {
    name: unique, uri, spec,
    async session() {
      const session = await Session.open(spec, { role: 'test' });
      // Tests write SQL as people do.
      await session.query('set search_path = public; reset row_security; reset client_min_messages; reset default_transaction_read_only');
      sessions.push(session);
      return session;
    },
    async run(sql) {
      const session = await database.session();
      try {
        await session.query(sql);
      } finally {
        await session.close();
      }
    },
    async query<Row extends object = Record<string, unknown>>(sql: string, values?: readonly unknown[]) {
      const session = await database.session();
      try {
        return await session.query<Row>(sql, values);
      } finally {
        await session.close();
      }
    },
    async drop() {
      for (const session of sessions) await session.close();
      await using inside = await Session.open(spec, { role: 'test' });
      const subscriptions = await inside.query<{ subname: string }>(`select subname from pg_catalog.pg_subscription s join pg_catalog.pg_database d on d.oid = s.subdbid where d.datname = pg_catalog.current_database()`);
      for (const { subname } of subscriptions) {
        await inside.query(`alter subscription ${quoteIdent(subname)} disable`);
        await inside.query(`alter subscription ${quoteIdent(subname)} set (slot_name = none)`);
        await inside.query(`drop subscription ${quoteIdent(subname)}`);
      }
      await inside.close();
      await withAdmin(async (s) => {
        // A subscriber elsewhere connects again at once where it may.
        await s.query(`alter database ${quoteIdent(unique)} allow_connections false`);
        // A slot can be dropped once its walsender has ended; terminating and dropping is repeated until none is left.
        for (let attempt = 0; attempt < 200; attempt += 1) {
          const left = await s.query<{ slot_name: string; active_pid: number | null }>('select slot_name, active_pid from pg_catalog.pg_replication_slots where database = $1', [unique]);
          if (left.length === 0) break;
          for (const slot of left) {
            if (slot.active_pid !== null) await s.query('select pg_catalog.pg_terminate_backend($1)', [slot.active_pid]);
            else await s.query('select pg_catalog.pg_drop_replication_slot($1)', [slot.slot_name]).catch(() => undefined);
          }
          await sleep(50);
        }
        await s.query(`drop database ${quoteIdent(unique)} with (force)`);
      });
    },
    [Symbol.asyncDispose]: () => database.drop(),
  };
  return database;
}

/** Waits until `condition` gives something truthy; fails with `what` after `timeoutMs`. */
export async function waitFor<T>(what: string, condition: () => Promise<T | undefined | false | null> | T | undefined | false | null, timeoutMs = 60_000): Promise<T> {
  const end = Date.now() + timeoutMs;
  for (;;) {
    const result = await condition();
    if (result) return result;
    if (Date.now() > end) throw new Error(`waited ${timeoutMs / 1000} s for: ${what}`);
    await sleep(25);
  }
}
