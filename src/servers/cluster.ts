import { execFile, spawn } from 'node:child_process';
import { chownSync, closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, renameSync, rmSync, writeFileSync, appendFileSync, chmodSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { sleep } from '../core/abort.ts';
import { PgweaveError } from '../core/errors.ts';
import { serverBinaries, type EmbeddedVersion } from './binaries.ts';
import { forget, removeWhenGone } from './reaper.ts';

const run = promisify(execFile);

/** PostgreSQL refuses to run as root: then servers run as nobody. */
const serverUser = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : undefined;

export interface ClusterOptions {
  readonly version: EmbeddedVersion;
  /** Lines of postgresql.conf, such as `{ wal_level: 'logical' }`; added to the defaults below. */
  readonly settings?: Readonly<Record<string, string>>;
  /** The whole of pg_hba.conf; default: trust on loopback and on the socket. */
  readonly hba?: string;
  /** Where the cluster's folder is made; default: the temporary folder. Kept out of the reaper's care where given: whoever gives it removes it. */
  readonly parent?: string;
  /** Reuse an initialised data folder of this version between runs (tests); default false. */
  readonly template?: boolean;
  readonly initdbArguments?: readonly string[];
}

/** Settings that make a small server for tests and demo: no fsync, room for slots and workers. */
const defaultSettings: Readonly<Record<string, string>> = {
  listen_addresses: "'127.0.0.1'", wal_level: 'logical', max_wal_senders: '40', max_replication_slots: '40', max_worker_processes: '40', max_logical_replication_workers: '24', max_connections: '200', max_prepared_transactions: '20',
  shared_buffers: '64MB', fsync: 'off', synchronous_commit: 'off', full_page_writes: 'off', min_wal_size: '80MB', max_wal_size: '1GB', log_min_messages: 'warning', log_line_prefix: "'%m [%p] %a '", timezone: "'UTC'", log_timezone: "'UTC'",
};

/** A PostgreSQL server of ours, in a folder of its own, on a free port of 127.0.0.1. Superuser `postgres`. */
export class Cluster implements AsyncDisposable {
  readonly version: EmbeddedVersion;
  readonly folder: string;
  readonly binaries: string;
  port = 0;
  #pid: number | undefined;
  readonly #kept: boolean;

  constructor(version: EmbeddedVersion, folder: string, binaries: string, kept: boolean) {
    this.version = version;
    this.folder = folder;
    this.binaries = binaries;
    this.#kept = kept;
  }

  get dataFolder(): string {
    return join(this.folder, 'data');
  }

  get logFile(): string {
    return join(this.folder, 'server.log');
  }

  /** Process id of the postmaster, while it runs. */
  get pid(): number | undefined {
    return this.#pid;
  }

  /** `postgresql://postgres@127.0.0.1:PORT/database`. */
  uri(database = 'postgres', user = 'postgres', password?: string): string {
    const credentials = password === undefined ? encodeURIComponent(user) : `${encodeURIComponent(user)}:${encodeURIComponent(password)}`;
    return `postgresql://${credentials}@127.0.0.1:${this.port}/${encodeURIComponent(database)}`;
  }

  /** Starts the server and waits until it accepts connections. Tries other ports where one was taken in the meantime. */
  async start(): Promise<void> {
    for (let attempt = 0; ; attempt += 1) {
      if (this.port === 0 || attempt > 0) this.port = this.#fixedPort ?? (await freePort());
      const log = openSync(this.logFile, 'a');
      const child = spawn(join(this.binaries, 'bin', 'postgres'), ['-D', this.dataFolder, '-p', String(this.port), '-k', this.folder], { stdio: ['ignore', log, log], detached: true, ...serverUser, env: { ...process.env, LC_ALL: 'C', PGDATA: '' } });
      closeSync(log);
      let ended = false;
      child.once('exit', () => {
        ended = true;
        if (this.#pid === child.pid) this.#pid = undefined;
      });
      child.once('error', () => {
        ended = true;
      });
      child.unref();
      this.#pid = child.pid;
      // Line 8 of postmaster.pid tells the status. Source: src/include/utils/pidfile.h, since version 10.
      while (!ended) {
        const lines = readIfThere(join(this.dataFolder, 'postmaster.pid')).split('\n');
        if (Number(lines[0]) === child.pid && lines[7]?.trim() === 'ready') {
          this.#fixedPort = this.port;
          return;
        }
        await sleep(15);
      }
      const tail = readIfThere(this.logFile).slice(-1500);
      // After kill -9 the shared memory of the last run is in use until the last child has gone; a port may have been taken.
      if (attempt < 40 && /pre-existing shared memory block|lock file "postmaster.pid" already exists|could not create any TCP\/IP sockets|Address already in use/.test(tail)) {
        if (/Address already in use/.test(tail) && attempt > 10) this.#fixedPort = undefined;
        await sleep(150);
        continue;
      }
      throw new PgweaveError('server-did-not-start', `PostgreSQL ${this.version} did not start`, { hint: `Its log ends: ${tail.split('\n').slice(-6).join(' | ')}` });
    }
  }

  #fixedPort: number | undefined;

  /** Stops the server: `fast` disconnects everybody, `immediate` leaves recovery to the next start. */
  async stop(mode: 'fast' | 'immediate' = 'fast'): Promise<void> {
    await this.#end(mode === 'fast' ? 'SIGINT' : 'SIGQUIT');
  }

  /** kill -9 of the postmaster; its children see that and end at once. */
  async kill(): Promise<void> {
    await this.#end('SIGKILL');
  }

  async restart(mode: 'fast' | 'immediate' = 'fast'): Promise<void> {
    await this.stop(mode);
    await this.start();
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const pid = this.#pid ?? Number(readIfThere(join(this.dataFolder, 'postmaster.pid')).split('\n')[0]);
    if (!pid) return;
    try {
      process.kill(pid, signal);
    } catch {
      return;
    }
    for (let waited = 0; alive(pid); waited += 20) {
      // A server that does not end within 30 s of a fast stop is ended by force.
      if (waited > 30_000) process.kill(pid, 'SIGKILL');
      await sleep(20);
    }
    this.#pid = undefined;
  }

  /** Adds lines to postgresql.conf; `restart()` or `reload()` makes them count. */
  configure(settings: Readonly<Record<string, string>>): void {
    appendFileSync(join(this.dataFolder, 'postgresql.conf'), configurationText(settings));
  }

  /** Replaces pg_hba.conf; `reload()` makes it count. */
  setHba(text: string): void {
    writeFileSync(join(this.dataFolder, 'pg_hba.conf'), text);
  }

  reload(): void {
    if (this.#pid) process.kill(this.#pid, 'SIGHUP');
  }

  /** From now on the server outlives this process; whoever wants it gone stops it and removes its folder. */
  leaveRunning(): void {
    forget(this.folder);
  }

  /** Stops the server and removes its folder. */
  async destroy(): Promise<void> {
    await this.stop('immediate');
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
    if (!this.#kept) forget(this.folder);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.destroy();
  }
}

/** Makes a cluster and starts it. */
export async function startCluster(options: ClusterOptions): Promise<Cluster> {
  const cluster = await createCluster(options);
  await cluster.start();
  return cluster;
}

/** Makes a cluster without starting it. */
export async function createCluster(options: ClusterOptions): Promise<Cluster> {
  const binaries = serverBinaries(options.version, serverUser?.uid);
  const folder = mkdtempSync(join(options.parent ?? tmpdir(), `pgw${options.version}-`));
  if (options.parent === undefined) removeWhenGone(folder);
  give(folder);
  const cluster = new Cluster(options.version, folder, binaries, options.parent !== undefined);
  const template = options.template && !options.initdbArguments ? await templateData(options.version, binaries) : undefined;
  if (template) await run('cp', ['-a', template, cluster.dataFolder]);
  else await initdb(binaries, cluster.dataFolder, options.initdbArguments ?? []);
  cluster.configure({ ...defaultSettings, ...options.settings });
  if (options.hba !== undefined) cluster.setHba(options.hba);
  return cluster;
}

/** A folder made here must belong to the user that the server runs as. */
function give(path: string): void {
  chmodSync(path, 0o755);
  if (serverUser) chownSync(path, serverUser.uid, serverUser.gid);
}

async function initdb(binaries: string, data: string, extra: readonly string[]): Promise<void> {
  const args = ['-D', data, '-U', 'postgres', '--auth=trust', '--no-sync', ...(extra.length > 0 ? extra : ['--encoding=UTF8', '--locale=C'])];
  try {
    await run(join(binaries, 'bin', 'initdb'), args, { ...serverUser, cwd: tmpdir(), env: { ...process.env, LC_ALL: 'C', TZ: 'UTC' } });
  } catch (error) {
    throw new PgweaveError('initdb-failed', `initdb failed: ${String((error as { stderr?: string }).stderr ?? error).trim().slice(-800)}`);
  }
}

/** An initialised data folder, kept in the temporary folder between runs. */
async function templateData(version: EmbeddedVersion, binaries: string): Promise<string> {
  const { stdout } = await run(join(binaries, 'bin', 'postgres'), ['--version']);
  const exact = /(\d+\.\d+)/.exec(stdout)?.[1] ?? String(version);
  const folder = join(tmpdir(), `pgweave-initdb-${exact}-${process.getuid?.() ?? 0}`);
  const data = join(folder, 'data');
  if (existsSync(data)) return data;
  mkdirSync(folder, { recursive: true });
  give(folder);
  const temporary = `${data}.${process.pid}.${Date.now()}`;
  await initdb(binaries, temporary, []);
  try {
    renameSync(temporary, data);
  } catch {
    // Another process was faster.
    rmSync(temporary, { recursive: true, force: true });
  }
  return data;
}

function configurationText(settings: Readonly<Record<string, string>>): string {
  return `\n${Object.entries(settings).map(([name, value]) => `${name} = ${value}`).join('\n')}\n`;
}

/** A port below the range that systems give to outgoing connections, free at this moment. */
async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 200; attempt += 1) {
    const port = 20_000 + Math.floor(Math.random() * 12_000);
    const free = await new Promise<boolean>((resolve) => {
      const server = createServer();
      server.once('error', () => resolve(false));
      server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
    });
    if (free) return port;
  }
  throw new PgweaveError('no-free-port', 'no free port between 20000 and 32000');
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    // A process whose parent has not waited for it yet stays visible as a zombie; it has ended all the same.
    return !/^\d+ \(.*\) Z/s.test(readIfThere(`/proc/${pid}/stat`));
  } catch {
    return false;
  }
}
