import { execFile, spawn } from 'node:child_process';
import { readdirSync, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { interruptedError } from '../core/errors.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';
import { dumpError } from './dump-error.ts';

export interface SystemDumper {
  readonly path: string;
  /** Such as `15.20`. */
  readonly version: string;
  readonly major: number;
}

const versionedParents = ['/usr/lib/postgresql', '/usr/pgsql', '/usr/local/opt', '/opt/homebrew/opt', '/Library/PostgreSQL', '/opt'];

/** Every pg_dump of this machine, newest first: packages' folders, then PATH (where Debian keeps a wrapper that chooses by itself). */
export async function systemDumpers(env: NodeJS.ProcessEnv = process.env): Promise<SystemDumper[]> {
  const folders = [
    ...versionedParents.flatMap((parent) => children(parent).filter((name) => /^(\d+|pgsql-\d+|postgresql@\d+|libpq)$/.test(name)).map((name) => join(parent, name, 'bin'))),
    ...children('/usr').filter((name) => name.startsWith('pgsql-')).map((name) => join('/usr', name, 'bin')),
    ...(env['PATH'] ?? '').split(delimiter).filter((folder) => folder !== ''),
  ];
  const paths = [...new Set(folders)].map((folder) => join(folder, 'pg_dump')).filter(isFile);
  const found = await Promise.all(paths.map(askVersion));
  const usable = found.filter((dumper) => dumper !== undefined);
  const minor = (dumper: SystemDumper) => Number(/\.(\d+)/.exec(dumper.version)?.[1] ?? 0);
  return usable.map((dumper, order) => ({ dumper, order })).toSorted((a, b) => b.dumper.major - a.dumper.major || minor(b.dumper) - minor(a.dumper) || a.order - b.order).map(({ dumper }) => dumper);
}

/** False where we may not look: a folder of PATH may belong to somebody else. */
function isFile(path: string): boolean {
  try {
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

function children(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function askVersion(path: string): Promise<SystemDumper | undefined> {
  return new Promise((resolve) => {
    // A wrapper that hangs must not hang us: ten seconds are far more than printing a version takes.
    execFile(path, ['--version'], { timeout: 10_000, env: { PATH: process.env['PATH'], LC_ALL: 'C' } }, (error, stdout) => {
      const match = /(\d+)(?:\.\d+)?/.exec(stdout);
      resolve(error || !match ? undefined : { path, version: match[0], major: Number(match[1]) });
    });
  });
}

/** Whether a libpq of this version understands everything that the connection needs; else the bundled dumper is taken, which connects as we do. */
export function canConnect(dumper: SystemDumper, spec: ConnectionSpec): boolean {
  // A passphrase has no environment variable, and must not be in argv; the word `system` came with libpq 16.
  return spec.sslPassword === undefined && (spec.sslRootCert !== 'system' || dumper.major >= 16);
}

/** libpq's variables for one host of a connection. The password is in the child's environment, never in its arguments. */
export function libpqEnvironment(spec: ConnectionSpec, host: { readonly host: string; readonly port: number }, applicationName: string): NodeJS.ProcessEnv {
  const inherited = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('PG')));
  return {
    ...inherited, LC_ALL: 'C', PGHOST: host.host, PGPORT: String(host.port), PGUSER: spec.user, PGDATABASE: spec.database, PGSSLMODE: spec.sslMode, PGAPPNAME: applicationName,
    // Whatever the password file says was read already, and its absence is no reason to ask.
    PGPASSFILE: '/nonexistent/pgpass', PGGSSENCMODE: 'disable', ...(spec.password === undefined ? {} : { PGPASSWORD: spec.password }), ...(spec.sslRootCert ? { PGSSLROOTCERT: spec.sslRootCert } : {}), ...(spec.sslCert ? { PGSSLCERT: spec.sslCert } : {}),
    ...(spec.sslKey ? { PGSSLKEY: spec.sslKey } : {}), ...(spec.options ? { PGOPTIONS: spec.options } : {}), ...(spec.connectTimeoutMs > 0 ? { PGCONNECT_TIMEOUT: String(Math.ceil(spec.connectTimeoutMs / 1000)) } : {}),
  };
}

/** Runs a pg_dump of this machine and returns what it printed. Throws a PgweaveError with its last words. */
export function runSystemDump(dumper: SystemDumper, args: readonly string[], env: NodeJS.ProcessEnv, signal?: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(interruptedError());
    const child = spawn(dumper.path, ['--no-password', ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] });
    const out: Buffer[] = [];
    let errors = '';
    const onAbort = () => child.kill('SIGTERM');
    signal?.addEventListener('abort', onAbort, { once: true });
    child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      errors = (errors + text).slice(-8000);
    });
    const end = () => signal?.removeEventListener('abort', onAbort);
    child.once('error', (error) => {
      end();
      reject(dumpError(`${dumper.path} could not be started: ${error.message}`));
    });
    child.once('close', (code) => {
      end();
      if (signal?.aborted) reject(interruptedError());
      else if (code === 0) resolve(Buffer.concat(out).toString('utf8'));
      else reject(dumpError(errors));
    });
  });
}
