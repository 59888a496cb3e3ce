import { createHash } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { PgweaveError, usageError } from './errors.ts';
import { makeFolder } from './make-folder.ts';

/** What identifies a job's two ends, without secrets: `host:port/database` of each. */
export interface JobIdentity {
  readonly source: string;
  readonly target: string;
  /** Connection URIs without passwords, so that later commands need only the job's name. */
  readonly sourceUri?: string;
  readonly targetUri?: string;
}

/**
 * Job names become names of slots, publications and origins, `pgweave_<job>`; a slot's name holds lower-case letters, digits and
 * underscores and 63 bytes at most (PostgreSQL documentation, "Replication Slots"). Throws a usage error.
 */
export function checkJobName(job: string): string {
  if (!/^[a-z0-9_]{1,32}$/.test(job)) throw usageError(`not a job name: "${job}"`, 'Use 1 to 32 lower-case letters, digits or underscores.');
  return job;
}

/** `$XDG_STATE_HOME/pgweave/<job>`, else `~/.local/state/pgweave/<job>`. */
export function defaultJobFolder(job: string, env: NodeJS.ProcessEnv = process.env): string {
  return join(env['XDG_STATE_HOME'] || join(homedir(), '.local', 'state'), 'pgweave', job);
}

/** Names of what a job makes in the databases. */
export function jobObjectName(job: string): string {
  return `pgweave_${job}`;
}

/** Writes a file whole: to a temporary name beside it, then renamed. Readable by its owner only. */
export function writeFileAtomically(path: string, text: string): void {
  const temporary = `${path}.${process.pid}.tmp`;
  writeFileSync(temporary, text, { mode: 0o600 });
  renameSync(temporary, path);
}

export class JobFolder {
  readonly path: string;
  readonly job: string;

  constructor(job: string, path: string) {
    this.job = checkJobName(job);
    this.path = path;
  }

  file(name: string): string {
    return join(this.path, name);
  }

  /** Makes the folder and records the job's two ends; refuses a job met again with others, unless it begins `anew`. */
  claim(identity: JobIdentity, options: { readonly anew?: boolean } = {}): void {
    makeFolder(this.path);
    const known = this.identity();
    if (known && options.anew !== true && (known.source !== identity.source || known.target !== identity.target)) {
      throw new PgweaveError('job-belongs-to-others', `job "${this.job}" was begun with other databases: ${known.source} → ${known.target}, now ${identity.source} → ${identity.target}`, {
        hint: `Choose another name with --job, or end the old job with: pgweave cleanup --job ${this.job}`, exitCode: 2, retry: 'never',
      });
    }
    if (!known || known.sourceUri !== identity.sourceUri || known.targetUri !== identity.targetUri) writeFileAtomically(this.file('job.json'), `${JSON.stringify({ format: 1, job: this.job, ...identity }, null, 2)}\n`);
  }

  /** The two ends recorded, or undefined where the job is new. */
  identity(): JobIdentity | undefined {
    const found = this.read('job.json') as (JobIdentity & { format: number }) | undefined;
    if (!found) return undefined;
    const { source, target, sourceUri, targetUri } = found;
    return { source, target, ...(sourceUri === undefined ? {} : { sourceUri }), ...(targetUri === undefined ? {} : { targetUri }) };
  }

  /** Parsed JSON of a file in the folder; undefined where there is none. Throws for a file that is no JSON. */
  read(name: string): unknown {
    let text: string;
    try {
      text = readFileSync(this.file(name), 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw new PgweaveError('state-unreadable', `cannot read ${this.file(name)}: ${(error as Error).message}`, { hint: 'Check the permissions of the state folder, or name another with --dir.', cause: error });
    }
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new PgweaveError('state-damaged', `${this.file(name)} is not valid JSON`, { hint: 'Move the file away; the truth about the job is kept in the target database.', cause: error });
    }
  }

  write(name: string, value: unknown): void {
    makeFolder(this.path);
    writeFileAtomically(this.file(name), `${JSON.stringify(value)}\n`);
  }
}

/** A short stable fingerprint of a text, for names that must fit into 63 bytes. */
export function fingerprint(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 12);
}
