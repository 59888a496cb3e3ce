import { PgweaveError } from '../core/errors.ts';
import { descriptorDrain, type DescriptorDrain } from '../pg/descriptor-drain.ts';
import { ServerError } from '../pg/server-error.ts';
import { backend, type WireConnection } from '../pg/wire-connection.ts';

export interface RelayOutcome {
  /** As the source's command tag counts them. */
  readonly rows: number;
  /** COPY bytes with their framing. */
  readonly bytes: number;
}

/** Size for the buffer that a relay reads into: what loopback piles up in two or three milliseconds at full speed. One relay at a time uses it. */
export const slabBytes = 1024 * 1024;

export interface RelayStatements {
  /** Ends with `copy … to stdout`; statements before it must return no rows. */
  readonly copyOut: string;
  /** Ends with `copy … from stdin`. */
  readonly copyIn: string;
}

/**
 * Walks over CopyData frames without looking into them. A CopyData frame is the same from a server as to one (`d`, length, bytes), so that whole chunks can be passed
 * on; only the frame heads must be visited to find the first frame of another kind. Heads may be cut anywhere by a chunk's end.
 */
export class FrameHopper {
  /** CopyData frames begun so far: one a row. */
  frames = 0;
  #bodyLeft = 0;
  #headSeen = 0;
  #length = 0;

  /** The index in `chunk` where the first frame that is no CopyData begins; the chunk's length where there is none. */
  hop(chunk: Uint8Array, length = chunk.length): number {
    let at = 0;
    for (;;) {
      const here = length - at;
      if (this.#bodyLeft >= here) {
        this.#bodyLeft -= here;
        return length;
      }
      at += this.#bodyLeft;
      this.#bodyLeft = 0;
      if (this.#headSeen === 0 && length - at >= 5) {
        if (chunk[at] !== backend.copyData) return at;
        this.#bodyLeft = ((chunk[at + 1]! << 24) | (chunk[at + 2]! << 16) | (chunk[at + 3]! << 8) | chunk[at + 4]!) - 4;
        this.frames += 1;
        at += 5;
        continue;
      }
      if (this.#headSeen === 0) {
        if (chunk[at] !== backend.copyData) return at;
        this.#length = 0;
        this.frames += 1;
      } else this.#length = (this.#length << 8) | chunk[at]!;
      this.#headSeen += 1;
      at += 1;
      if (this.#headSeen === 5) {
        this.#bodyLeft = this.#length - 4;
        this.#headSeen = 0;
      }
      if (at === length) return length;
    }
  }
}

/**
 * Runs COPY TO on one connection and COPY FROM on another and passes the bytes on, with backpressure: while the target does not take bytes, the source is not read.
 * An error of the source ends the target's COPY too and leaves both usable; an error of the target leaves the source in the middle of its COPY, so its connection is
 * closed. Throws what failed first: ServerError, or PgweaveError `connection-lost`. `onProgress` gets increments; `slab` see {@link slabBytes}.
 */
export async function relayCopy(source: WireConnection, target: WireConnection, statements: RelayStatements, onProgress: (bytes: number, rows: number) => void, slab: Buffer): Promise<RelayOutcome> {
  await startCopyIn(target, statements.copyIn);
  const incoming = endOfCopyIn(target);
  // Its failure is looked at below, after the source has ended.
  incoming.catch(() => undefined);
  let outcome: RelayOutcome;
  try {
    outcome = await Promise.race([passOn(source, target, statements.copyOut, onProgress, slab), incoming.then(() => Promise.reject(new PgweaveError('copy-ended-early', 'the target ended its COPY before the source had sent all rows')))]);
  } catch (error) {
    if (error instanceof ServerError && !target.lost && !source.lost) {
      const failed = await Promise.race([incoming.then(() => undefined, (e: unknown) => e), Promise.resolve(undefined)]);
      if (failed === undefined) {
        target.sendCopyFail('the source could not go on');
        await incoming.catch(() => undefined);
        throw error;
      }
    }
    await source.close();
    throw error;
  }
  target.sendCopyDone();
  await incoming;
  return outcome;
}

/** Sends the statement and waits until the server takes data. */
function startCopyIn(target: WireConnection, sql: string): Promise<void> {
  return new Promise((resolve, reject) => {
    let error: ServerError | undefined;
    target.begin((type, body) => {
      if (type === backend.copyIn) {
        target.finish();
        resolve();
      } else if (type === backend.error) error ??= ServerError.parse(body);
      else if (type === backend.readyForQuery) {
        target.finish();
        reject(error ?? new PgweaveError('no-copy', 'the target did not start COPY'));
      }
    }, reject);
    target.sendQuery(sql);
  });
}

/** Waits until the server has ended its COPY and is ready again. */
function endOfCopyIn(target: WireConnection): Promise<void> {
  return new Promise((resolve, reject) => {
    let error: ServerError | undefined;
    target.begin((type, body) => {
      if (type === backend.error) error ??= ServerError.parse(body);
      else if (type === backend.readyForQuery) {
        target.finish();
        if (error) reject(error);
        else resolve();
      }
    }, reject);
  });
}

/** Pause between two reads, in milliseconds: longer while little has come, so that a slow source costs few reads. */
const longestPauseMs = 8;
const littleBytes = 64 * 1024;
const muchBytes = 256 * 1024;

function passOn(source: WireConnection, target: WireConnection, sql: string, onProgress: (bytes: number, rows: number) => void, slab: Buffer): Promise<RelayOutcome> {
  return new Promise((resolve, reject) => {
    const hopper = new FrameHopper();
    const drain = descriptorDrain(source.socket);
    let pump: Pump | undefined;
    let bytes = 0;
    let counted = 0;
    let rows = 0;
    let error: ServerError | undefined;
    const onDrain = () => source.socket.resume();
    target.socket.on('drain', onDrain);
    const done = (settle: () => void) => {
      pump?.stop();
      target.socket.off('drain', onDrain);
      // A source that was paused must be readable again for whatever it does next.
      source.socket.resume();
      settle();
    };
    /** Passes a chunk on up to the end of its CopyData; the rest are messages again. Returns false where there was a rest. */
    const pass = (chunk: Buffer, write: (data: Buffer) => void): boolean => {
      const end = hopper.hop(chunk);
      if (end > 0) {
        bytes += end;
        write(end === chunk.length ? chunk : chunk.subarray(0, end));
        onProgress(end, hopper.frames - counted);
        counted = hopper.frames;
      }
      if (end === chunk.length) return true;
      // From here on by events: a notice in mid-copy, or the end. The chunk may be a piece of the slab.
      const rest = Buffer.from(chunk.subarray(end));
      pump?.stop();
      pump = undefined;
      source.giveBack(rest);
      return false;
    };
    source.begin((type, body) => {
      switch (type) {
        case backend.copyOut:
          source.takeOver((chunk) => {
            const more = pass(chunk, (data) => {
              if (!target.socket.write(data)) source.socket.pause();
            });
            if (!more || !drain || pump) return;
            source.socket.resume();
            pump = startPump(drain, slab, target, pass);
          });
          return;
        case backend.commandComplete: {
          const tag = /^COPY (\d+)/.exec(body.toString('latin1'));
          if (!tag) return;
          rows = Number(tag[1]);
          // Frames are rows but for the header and trailer of the binary form: the server's own count settles it.
          onProgress(0, rows - counted);
          return;
        }
        case backend.error:
          error ??= ServerError.parse(body);
          return;
        case backend.readyForQuery: {
          source.finish();
          const failed = error;
          if (failed) done(() => reject(failed));
          else done(() => resolve({ rows, bytes }));
          return;
        }
        default:
      }
    }, (lost) => done(() => reject(lost)));
    source.sendQuery(sql);
  });
}

interface Pump {
  /** Node reads the source's socket again. */
  stop(): void;
}

/**
 * Reads the source at moments of our choosing instead of at each of its 8 kB writes, into one buffer that is used again once the target's socket has taken its bytes. Against
 * reading by events this takes a third of the CPU of this process and some of the servers'.
 */
function startPump(drain: DescriptorDrain, slab: Buffer, target: WireConnection, pass: (chunk: Buffer, write: (data: Buffer) => void) => boolean): Pump {
  let timer: NodeJS.Timeout | undefined;
  let pauseMs = 1;
  let stopped = false;
  let writing = false;
  const stop = () => {
    if (stopped) return;
    stopped = true;
    clearTimeout(timer);
    drain.start();
  };
  const schedule = (got: number) => {
    if (stopped || writing) return;
    if (got >= muchBytes) pauseMs = Math.max(1, pauseMs >> 1);
    else if (got < littleBytes) pauseMs = Math.min(longestPauseMs, pauseMs * 2);
    timer = setTimeout(cycle, got === slab.length ? 0 : pauseMs);
  };
  const cycle = () => {
    if (stopped) return;
    const got = drain.read(slab, 0);
    if (got < 0) {
      // Node finds the end, or the error, by itself.
      stop();
      return;
    }
    if (got > 0) {
      pass(slab.subarray(0, got), (data) => {
        writing = true;
        target.socket.write(data, () => {
          writing = false;
          schedule(got);
        });
      });
    }
    schedule(got);
  };
  drain.stop();
  timer = setTimeout(cycle, pauseMs);
  return { stop };
}
