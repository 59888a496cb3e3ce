import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Emit } from '../core/events.ts';
import { maxLsn, type Lsn } from '../pg/lsn.ts';
import type { ChangeLog } from './change-log.ts';
import { LogCore } from './log-core.ts';
import { MemoryLog } from './memory-log.ts';
import { Receiver, type ReceiverOptions } from './receiver.ts';
import { SlotWatch, type SlotWatchOptions } from './slot-watch.ts';
import { recoverSegments } from './spool/segments.ts';
import { SpoolFolder, type SpoolIdentity } from './spool/spool-folder.ts';
import { SpoolLog } from './spool/spool-log.ts';

const mebibyte = 1024 * 1024;

export interface ReceiveOptions extends Omit<ReceiverOptions, 'emit'> {
  /** The reader's progress: transactions that end here or before are left out. On a new target: the slot's consistent point. */
  readonly startLsn: Lsn;
  readonly emit?: Emit;
  /** Stops receiving, as `close` does. */
  readonly signal?: AbortSignal | undefined;
  /** Origins to leave out one by one, where `origin` is not `none`. */
  readonly leaveOutOrigin?: (name: string) => boolean;
  /** Received transactions that wait for the reader take at most about this much memory; then the source waits. Default 16 MB. */
  readonly memoryBytes?: number;
  /** A transaction of this size is given to the reader while it arrives. Default 4 MB. */
  readonly largeBytes?: number;
  /** Streamed and prepared transactions together take at most this much memory, the rest goes to `spillFolder`. Default 32 MB; the temporary folder. */
  readonly heldBytes?: number;
  readonly spillFolder?: string;
  /** How often the slot is looked at; 0 never. Default 2 s. */
  readonly healthEveryMs?: number;
  /** Keep what is received on disk, and acknowledge it once it is there. */
  readonly spool?: SpoolOptions | undefined;
}

export interface SpoolOptions {
  readonly folder: string;
  /** Default 64 GB. */
  readonly maxBytes?: number;
  /** At the limit: `stop` fails with `spool-full` (default), `wait` receives nothing until the reader has made room. A run that finds a full spool waits in both cases. */
  readonly whenFull?: 'stop' | 'wait';
  /** Default 64 MB, and not more than an eighth of the limit. */
  readonly segmentBytes?: number;
  readonly keepaliveEveryMs?: number;
  /** Called before anything is received, so that somebody remembers where acknowledged changes lie; what it throws is thrown. */
  readonly onOpen?: (spool: SpoolIdentity) => Promise<void>;
}

/**
 * Receives changes into memory or, with `spool`, onto disk. Throws what stands against it: no such server, no such slot, slot in use, lost, or of another plugin;
 * a spool that is in use, damaged, or another job's.
 */
export function receiveChanges(options: ReceiveOptions): Promise<ChangeLog> {
  return options.spool ? receiveIntoSpool(options, options.spool) : receiveInMemory(options);
}

/** As `receiveChanges` without a spool, with the insides that benchmarks look at. */
export async function receiveInMemory(options: ReceiveOptions): Promise<MemoryLog> {
  const emit = options.emit ?? (() => undefined);
  const core = new LogCore({ ...coreOptions(options), onRoom: () => log.receiver.room(), ask: () => log.receiver.ask() });
  const log: MemoryLog = new MemoryLog(core);
  await log.start(new Receiver({ ...options, emit }, log), () => slotWatch(options, emit, { onLost: (error) => core.fail(error), onTrouble: () => log.receiver.letGo(), onStopping: () => log.receiver.restart() }));
  closeOnAbort(log, options.signal);
  return log;
}

/** As `receiveChanges` with a spool. */
export async function receiveIntoSpool(options: ReceiveOptions, spool: SpoolOptions): Promise<SpoolLog> {
  const emit = options.emit ?? (() => undefined);
  const folder = SpoolFolder.open(spool.folder, options.slot);
  try {
    await spool.onOpen?.(folder.identity);
    const recovered = recoverSegments(spool.folder);
    const core: LogCore = new LogCore({ ...coreOptions({ spillFolder: join(spool.folder, 'spill'), ...options }), onRoom: () => log.coreRoom(), ask: () => log.receiver.ask() });
    const maxBytes = spool.maxBytes ?? 64 * 1024 * mebibyte;
    const log: SpoolLog = new SpoolLog({
      folder, recovered, core, startLsn: options.startLsn, maxBytes, segmentBytes: spool.segmentBytes ?? Math.max(mebibyte, Math.min(64 * mebibyte, Math.floor(maxBytes / 8))), whenFull: spool.whenFull ?? 'stop',
      keepaliveEveryMs: spool.keepaliveEveryMs ?? 10_000, emit,
    });
    // What was acknowledged is in the spool, or was applied: a slot that is further has lost changes.
    const acknowledgedLsn = recovered.segments.length > 0 ? maxLsn(recovered.ackLsn, options.startLsn) : undefined;
    const receiver = new Receiver({ ...options, emit, acknowledgedLsn: options.acknowledgedLsn ?? acknowledgedLsn, systemId: options.systemId ?? folder.identity.systemId }, log);
    try {
      await log.start(receiver, () => slotWatch(options, emit, { onLost: (error) => core.fail(error), onTrouble: () => receiver.letGo(), onStopping: () => receiver.restart() }));
    } catch (error) {
      await log.close();
      throw error;
    }
    closeOnAbort(log, options.signal);
    return log;
  } catch (error) {
    folder.close();
    throw error;
  }
}

/** The part of LogCore's options that follows from ReceiveOptions. */
export function coreOptions(options: Pick<ReceiveOptions, 'startLsn' | 'memoryBytes' | 'largeBytes' | 'heldBytes' | 'spillFolder' | 'origin' | 'leaveOutOrigin'>): Omit<ConstructorParameters<typeof LogCore>[0], 'onRoom' | 'ask'> {
  return {
    startLsn: options.startLsn, memoryBytes: options.memoryBytes ?? 16 * mebibyte, largeBytes: options.largeBytes ?? 4 * mebibyte, heldBytes: options.heldBytes ?? 32 * mebibyte,
    spillFolder: options.spillFolder ?? join(tmpdir(), `pgweave-spill-${process.getuid?.() ?? 0}`), leaveOut: (name) => options.origin === 'none' || (options.leaveOutOrigin?.(name) ?? false),
  };
}

export function slotWatch(options: ReceiveOptions, emit: Emit, reactions: Pick<SlotWatchOptions, 'onLost' | 'onTrouble' | 'onStopping'>): SlotWatch | undefined {
  const everyMs = options.healthEveryMs ?? 2000;
  return everyMs === 0 ? undefined : new SlotWatch({ source: options.source, slot: options.slot, everyMs, emit, ...reactions, ...(options.job === undefined ? {} : { job: options.job }) });
}

export function closeOnAbort(log: ChangeLog, signal: AbortSignal | undefined): void {
  if (!signal) return;
  const close = () => void log.close();
  if (signal.aborted) close();
  else signal.addEventListener('abort', close, { once: true });
}
