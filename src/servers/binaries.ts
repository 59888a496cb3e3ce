import { cpSync, existsSync, readFileSync, renameSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { PgweaveError } from '../core/errors.ts';

/** Major versions that come as npm packages. */
export const embeddedVersions = [14, 15, 16, 17, 18] as const;
export type EmbeddedVersion = (typeof embeddedVersions)[number];

const require = createRequire(import.meta.url);

/**
 * The folder that holds `bin/postgres` and `bin/initdb` of a major version: the npm package's, else a system installation.
 * A folder that user `uid` could not enter is copied to the temporary folder first. Throws where neither is there.
 */
export function serverBinaries(version: EmbeddedVersion, uid: number | undefined): string {
  const packaged = packagedBinaries(version);
  const found = packaged ?? systemBinaries(version);
  if (!found) {
    throw new PgweaveError('no-server-binaries', `no PostgreSQL ${version} is installed here`, { hint: 'Run `npm ci` in a checkout (it brings servers 14 to 18), or install the server with your system\'s package manager.' });
  }
  if (packaged) restoreSymlinks(packaged);
  return binariesFor(uid, found, version);
}

/** The folder, or a copy of it in the temporary folder where user `uid` could not enter it. */
export function binariesFor(uid: number | undefined, folder: string, version: EmbeddedVersion): string {
  return uid === undefined || enterable(folder) ? folder : copyOut(folder, version);
}

/** Whether a major version can be started here. */
export function hasServer(version: EmbeddedVersion): boolean {
  return (packagedBinaries(version) ?? systemBinaries(version)) !== undefined;
}

function packagedBinaries(version: EmbeddedVersion): string | undefined {
  try {
    // Optional packages, one a version and platform; npm installs those that fit.
    const entry = require.resolve(`postgres-${version}-${process.platform}-${process.arch}`);
    const folder = resolve(dirname(entry), '..', 'native');
    const { version: found } = JSON.parse(readFileSync(resolve(folder, '..', 'package.json'), 'utf8')) as { version: string };
    return Number(found.split('.')[0]) === version && existsSync(join(folder, 'bin', 'postgres')) ? folder : undefined;
  } catch {
    return undefined;
  }
}

function systemBinaries(version: EmbeddedVersion): string | undefined {
  const folders = [`/usr/lib/postgresql/${version}`, `/usr/pgsql-${version}`, `/opt/homebrew/opt/postgresql@${version}`, `/usr/local/opt/postgresql@${version}`];
  return folders.find((folder) => existsSync(join(folder, 'bin', 'postgres')) && existsSync(join(folder, 'bin', 'initdb')));
}

/** npm packages cannot hold symbolic links; the package lists them and makes them after its installation, unless scripts were turned off. */
function restoreSymlinks(folder: string): void {
  const list = join(folder, 'pg-symlinks.json');
  if (!existsSync(list)) return;
  for (const { source, target } of JSON.parse(readFileSync(list, 'utf8')) as { source: string; target: string }[]) {
    const link = join(folder, '..', target);
    if (existsSync(link)) continue;
    try {
      symlinkSync(source.slice(source.lastIndexOf('/') + 1), link);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
  }
}

/** Whether every folder on the way lets other users in. */
function enterable(folder: string): boolean {
  for (let at = folder; ; at = dirname(at)) {
    if ((statSync(at).mode & 0o001) === 0) return false;
    if (at === dirname(at)) return true;
  }
}

function copyOut(folder: string, version: number): string {
  const { mtimeMs } = statSync(join(folder, 'bin', 'postgres'));
  const copy = join(tmpdir(), `pgweave-postgres-${version}-${Math.round(mtimeMs)}`);
  if (existsSync(copy)) return copy;
  const temporary = `${copy}.${process.pid}`;
  cpSync(folder, temporary, { recursive: true, verbatimSymlinks: true });
  try {
    renameSync(temporary, copy);
  } catch {
    // Another process was faster.
    rmSync(temporary, { recursive: true, force: true });
  }
  return copy;
}
