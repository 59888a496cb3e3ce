import { closeSync, openSync, readdirSync, readSync, rmSync, statSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { PgweaveError } from '../../core/errors.ts';
import { zeroLsn, type Lsn } from '../../pg/lsn.ts';
import { FrameBuffer } from '../frame-buffer.ts';
import { FrameScan } from './frame-scan.ts';
import { decodeStart, recordHead, recordIsSound, recordKind } from './records.ts';

export function segmentPath(folder: string, number: number): string {
  return join(folder, `${String(number).padStart(10, '0')}.spool`);
}

/** Numbers of the segments in a folder, ascending, with their sizes. */
export function listSegments(folder: string): { readonly number: number; readonly bytes: number }[] {
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  return names.flatMap((name) => (/^\d{10}\.spool$/.test(name) ? [{ number: Number(name.slice(0, 10)), bytes: statSync(join(folder, name)).size }] : [])).sort((a, b) => a.number - b.number);
}

export interface Recovered {
  /** Segments with something in them. */
  readonly segments: readonly { readonly number: number; readonly bytes: number }[];
  /** Everything before it is in the spool, or did not concern us. Zero where the spool is empty. */
  readonly ackLsn: Lsn;
  /** What is torn off when writing begins. */
  readonly torn: { readonly number: number; readonly soundBytes: number } | undefined;
}

/**
 * Looks at the segments that an earlier process left, without changing them: reads the last one to find where it ends. A record cut there was never acknowledged.
 * Throws `spool-damaged` where one before the last has no beginning.
 */
export function recoverSegments(folder: string): Recovered {
  const segments = listSegments(folder);
  let torn: Recovered['torn'];
  for (let last = segments.pop(); last; last = segments.pop()) {
    const found = scanSegment(folder, last.number);
    if (found) {
      segments.push({ number: last.number, bytes: found.soundBytes });
      if (found.soundBytes < last.bytes) torn = { number: last.number, soundBytes: found.soundBytes };
      return { segments, ackLsn: found.ackLsn, torn };
    }
    if (torn) throw damaged(segmentPath(folder, last.number), 0);
    torn = { number: last.number, soundBytes: 0 };
  }
  return { segments: [], ackLsn: zeroLsn, torn };
}

/** Cuts a torn end off. */
export function cutTorn(folder: string, torn: NonNullable<Recovered['torn']>): void {
  const path = segmentPath(folder, torn.number);
  if (torn.soundBytes === 0) rmSync(path);
  else truncateSync(path, torn.soundBytes);
}

/** Reads a segment to its end or to the first record that is not sound; undefined where not even its start is. */
function scanSegment(folder: string, number: number): { ackLsn: Lsn; soundBytes: number } | undefined {
  const fd = openSync(segmentPath(folder, number), 'r');
  try {
    const buffer = new FrameBuffer();
    let scan: FrameScan | undefined;
    let soundBytes = 0;
    let sound = true;
    for (let position = 0; sound;) {
      const into = buffer.room();
      const read = readSync(fd, into, buffer.filled, into.length - buffer.filled, position);
      if (read === 0) break;
      position += read;
      buffer.wrote(read);
      try {
        buffer.takeFrames((bytes, start, end) => {
          sound &&= recordIsSound(bytes, start, end);
          if (!sound) return;
          if (!scan) {
            const first = bytes[start] === recordKind.start ? decodeStart(bytes, start + recordHead, end) : undefined;
            if (first) {
              scan = new FrameScan(first.ackLsn);
              scan.scan(bytes, first.framesAt, end);
            } else sound = false;
          } else if (bytes[start] === recordKind.connection) scan.connection();
          else if (bytes[start] === recordKind.frames) scan.scan(bytes, start + recordHead, end);
          if (sound) soundBytes += end - start;
        });
      } catch {
        // Bytes that cannot be a record's head.
        sound = false;
      }
    }
    return scan && { ackLsn: scan.ackLsn, soundBytes };
  } finally {
    closeSync(fd);
  }
}

export function damaged(path: string, offset: number): PgweaveError {
  return new PgweaveError('spool-damaged', `the spool is damaged: ${path} at byte ${offset} is not what was written`, {
    retry: 'never', hint: 'Changes in it were already acknowledged to the source and cannot come again. Check the disk, then begin again with a new copy: pgweave cleanup, then pgweave clone --follow.', details: { path, offset },
  });
}
