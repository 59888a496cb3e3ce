import { randomUUID } from 'node:crypto';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { PgweaveError } from '../../core/errors.ts';
import { writeFileAtomically } from '../../core/job-folder.ts';
import { makeFolder } from '../../core/make-folder.ts';

/** Whose changes a spool holds. */
export interface SpoolIdentity {
  /** Made with the spool; a spool with another id is another spool. */
  readonly id: string;
  readonly slot: string;
  /** Of the source; undefined until it was met. */
  readonly systemId: string | undefined;
}

const identityFile = 'spool.json';
const lockFile = 'lock';

/** A spool's folder while a process uses it: knows whose it is and keeps other processes out. */
export class SpoolFolder {
  readonly path: string;
  #identity: SpoolIdentity;
  #closed = false;

  private constructor(path: string, identity: SpoolIdentity) {
    this.path = path;
    this.#identity = identity;
  }

  /** Makes the folder where there is none. Throws `spool-in-use`, `spool-of-another-job` or `spool-failed`. */
  static open(path: string, slot: string): SpoolFolder {
    try {
      makeFolder(path);
      const known = readIdentity(path);
      if (known && known.slot !== slot) {
        throw new PgweaveError('spool-of-another-job', `the spool in ${path} belongs to slot ${known.slot}, not to ${slot}`, { retry: 'never', hint: 'Name another folder with --spool.', exitCode: 2 });
      }
      lock(path);
      const identity = known ?? { id: randomUUID(), slot, systemId: undefined };
      const folder = new SpoolFolder(path, identity);
      if (!known) folder.#write();
      return folder;
    } catch (error) {
      if (error instanceof PgweaveError && error.code !== 'folder-not-made') throw error;
      throw new PgweaveError('spool-failed', `cannot use ${path} as a spool: ${(error as Error).message}`, { hint: 'Check the path, its permissions and the space on its disk.', cause: error });
    }
  }

  get identity(): SpoolIdentity {
    return this.#identity;
  }

  /** Remembers which system the changes come from. */
  setSystemId(systemId: string): void {
    if (this.#identity.systemId === systemId) return;
    this.#identity = { ...this.#identity, systemId };
    this.#write();
  }

  #write(): void {
    writeFileAtomically(join(this.path, identityFile), `${JSON.stringify({ format: 1, ...this.#identity }, null, 2)}\n`);
  }

  /** Lets other processes in. */
  close(): void {
    if (!this.#closed) rmSync(join(this.path, lockFile), { force: true });
    this.#closed = true;
  }
}

/** Whose changes a folder holds; undefined where it is no spool. */
export function readIdentity(path: string): SpoolIdentity | undefined {
  let text: string;
  try {
    text = readFileSync(join(path, identityFile), 'utf8');
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw error;
  }
  const found = JSON.parse(text) as Partial<SpoolIdentity>;
  if (typeof found.id !== 'string' || typeof found.slot !== 'string') throw new Error(`${identityFile} is damaged`);
  return { id: found.id, slot: found.slot, systemId: typeof found.systemId === 'string' ? found.systemId : undefined };
}

interface Holder {
  readonly host: string;
  readonly pid: number;
  /** When the process started, where the system tells: process ids come again. */
  readonly started: string | null;
}

/** The slot itself keeps a second follower out; this keeps it from touching files before it finds that out. */
function lock(path: string): void {
  const file = join(path, lockFile);
  const mine: Holder = { host: hostname(), pid: process.pid, started: startOf(process.pid) };
  for (let attempt = 0; ; attempt += 1) {
    try {
      writeFileSync(file, JSON.stringify(mine), { flag: 'wx', mode: 0o600 });
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || attempt > 5) throw error;
    }
    const holder = readHolder(file);
    if (holder && holder.host === mine.host && alive(holder)) {
      throw new PgweaveError('spool-in-use', `the spool in ${path} is in use by process ${holder.pid}`, { hint: `Another follower of this job is running. If that is not so, remove ${file}.`, retry: 'manual' });
    }
    rmSync(file, { force: true });
  }
}

function readHolder(file: string): Holder | undefined {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Holder;
  } catch {
    // Gone meanwhile, or written half by a process that died.
    return undefined;
  }
}

function alive(holder: Holder): boolean {
  try {
    process.kill(holder.pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
  const started = startOf(holder.pid);
  return holder.started === null || started === null || holder.started === started;
}

/** Start of a process in clock ticks since boot. Source: proc(5), /proc/pid/stat, field 22; the name before it may hold anything. */
function startOf(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? null;
  } catch {
    return null;
  }
}
