import { closeSync, constants, openSync, readFileSync, writeSync } from 'node:fs';
import { mayReadControl, systemIdentifier } from '../../catalog/server-identity.ts';
import { PgweaveError } from '../../core/errors.ts';
import type { JobFolder } from '../../core/job-folder.ts';
import { makeFolder } from '../../core/make-folder.ts';
import { formatLsn, parseLsn, type Lsn } from '../../pg/lsn.ts';
import type { Session } from '../../pg/session.ts';

const fileName = 'applied';
/** Room for `system identifier, LSN`, so that a line always covers the one before. */
const lineBytes = 64;

/** Where the target of a job stands when a follower begins. */
export interface Standing {
  /** Undefined where nothing of the stream is applied. */
  readonly progress: Lsn | undefined;
  /** What the slot has let go of; zero where there is no slot. */
  readonly slotLsn: Lsn;
  /** LSN of the oldest snapshot that a table was copied in; undefined where no table has one. */
  readonly copiedLsn: Lsn | undefined;
}

/**
 * Remembers in the job's folder how far the target had come, always written before the source is told. A target that stands behind it was set back (restored from a
 * backup, failed over to a standby that lacked the last commits), which nothing in the databases tells from a stream where nothing happened.
 */
export class AppliedRecord {
  readonly #systemId: string;
  readonly #file: number;
  readonly #found: { readonly systemId: string; readonly lsn: Lsn } | undefined;

  private constructor(systemId: string, file: number, found: { readonly systemId: string; readonly lsn: Lsn } | undefined) {
    this.#systemId = systemId;
    this.#file = file;
    this.#found = found;
  }

  static async open(folder: JobFolder, source: Session): Promise<AppliedRecord> {
    makeFolder(folder.path);
    const { allowed } = await source.one<{ allowed: boolean }>(mayReadControl());
    const systemId = allowed ? (await source.one<{ id: string }>(systemIdentifier())).id : 'unknown';
    const path = folder.file(fileName);
    // Not cut to nothing: the last line stays until the first one is written over it.
    return new AppliedRecord(systemId, openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600), parse(readFileSync(path, 'utf8')));
  }

  /** Throws `target-went-back` where changes that the target had are gone from it and from the slot. */
  check(job: string, { progress, slotLsn, copiedLsn }: Standing): void {
    const found = this.#found;
    // Of another system, or of an earlier life of the job: it was copied anew since.
    if (!found || found.systemId !== this.#systemId || (copiedLsn !== undefined && copiedLsn > found.lsn)) return;
    // Without either nobody knows in which life the job is.
    const at = progress ?? copiedLsn;
    // A slot that still holds everything sends it again. One that is ahead may be so without having let go of anything of ours; nobody can tell, and a gap would be worse.
    if (at === undefined || at >= found.lsn || slotLsn <= at) return;
    throw new PgweaveError('target-went-back', `the target has the source's changes up to ${formatLsn(at)} only, but had them up to ${formatLsn(found.lsn)}: it was set back, and the slot no longer holds what lies between`, {
      retry: 'never', details: { progress: formatLsn(at), applied: formatLsn(found.lsn), slot: formatLsn(slotLsn) },
      hint: `Was it restored from a backup, or failed over to a standby that lacked the last commits? Either go back to the target that has them, or begin again: pgweave cleanup --job ${job}, then pgweave clone --follow. To see what differs first: pgweave verify --job ${job}.`,
    });
  }

  /** The target has committed everything up to `lsn`. Call it before that is confirmed to the log. */
  note(lsn: Lsn): void {
    writeSync(this.#file, `${`${this.#systemId} ${formatLsn(lsn)}`.padEnd(lineBytes - 1)}\n`, 0);
  }

  close(): void {
    closeSync(this.#file);
  }
}

function parse(text: string): { readonly systemId: string; readonly lsn: Lsn } | undefined {
  const [, systemId, lsn] = /^(\S+) ([0-9A-F]+\/[0-9A-F]+) *\n/.exec(text) ?? [];
  return systemId === undefined || lsn === undefined ? undefined : { systemId, lsn: parseLsn(lsn) };
}
