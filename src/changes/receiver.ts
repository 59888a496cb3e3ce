import { slotState, slotUser, type SlotStateRow, type SlotUserRow } from '../catalog/slot-state.ts';
import { Backoff, sleep } from '../core/abort.ts';
import { errorMessage, interruptedError, isInterrupted, PgweaveError } from '../core/errors.ts';
import type { Emit } from '../core/events.ts';
import { failpoint } from '../core/failpoints.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';
import { formatLsn, maxLsn, parseLsn, zeroLsn, type Lsn } from '../pg/lsn.ts';
import { ReplicationSession } from '../pg/replication-session.ts';
import { isTransient, sqlstate, sqlstateOf } from '../pg/sqlstate.ts';
import { livenessFor } from './liveness.ts';
import { pgoutputOptions, type StreamOptions } from './pgoutput-options.ts';
import { ReplicationLink, type FrameSink } from './replication-link.ts';
import { checkSlot } from './slot-check.ts';
import type { SocketReaderOptions } from './socket-reader.ts';
import { SystemCheck } from './system-check.ts';

/** Where received frames go, and what the receiver must know of them to connect again. */
export interface ReceiverSink extends FrameSink {
  /** Everything that ends here or before need not be sent again. */
  readonly startLsn: Lsn;
  /** Called before the first frame of a connection. */
  connected(): void;
  /** Called after the last frame of a connection: what is incomplete comes again from its beginning. */
  disconnected(): void;
  /** The source was failed over at `switchLsn`: what was received beyond it never happened there. Throws where that cannot be taken back. */
  failedOver(switchLsn: Lsn): void;
  /** The receiver can never go on. */
  fail(error: unknown): void;
}

export interface ReceiverOptions extends StreamOptions, SocketReaderOptions {
  readonly source: ConnectionSpec;
  readonly job?: string;
  readonly slot: string;
  readonly emit: Emit;
  /** The system identifier that was met when the job began; another one is refused. */
  readonly systemId?: string | undefined;
  /** The newest position that this job can have acknowledged before: a slot beyond it was moved by somebody else. Undefined where nobody knows. */
  readonly acknowledgedLsn?: Lsn | undefined;
  /** For this connection; default: the server's own wal_sender_timeout. */
  readonly walSenderTimeoutMs?: number;
  /** logical_decoding_work_mem of the walsender: transactions up to this size are decoded without files. Default 256 MB. */
  readonly decodingMemory?: string;
  /** How long a slot that somebody else holds is waited for; default 10 s, and after a broken connection what the server may need to notice it. */
  readonly slotInUseMs?: number;
}

const terminateOwn = (pid: number) => `select pg_catalog.pg_terminate_backend(${Math.trunc(pid)})`;
/** A connection that held this long was good: the next failure begins with short pauses again. */
const goodAfterMs = 10_000;

/**
 * Keeps one replication connection to the source, and makes a new one whenever it breaks: with pauses that grow, from the same slot, after checking that it is
 * still the same system, in the same history, with the slot as we left it [hard cases 20, 22].
 */
export class Receiver {
  readonly #options: ReceiverOptions;
  readonly #sink: ReceiverSink;
  readonly #abort = new AbortController();
  readonly #system: SystemCheck;
  #link: ReplicationLink | undefined;
  #running: Promise<void> = Promise.resolve();
  /** The slot can be here by our doing, not further: where we found it first, and what we have acknowledged since. */
  #acknowledgedLsn: Lsn | undefined;
  #everConnected = false;
  #formerPid: number | undefined;
  #walSenderTimeoutMs = 60_000;
  #restarting = false;
  #onRoom: (() => void) | undefined;

  constructor(options: ReceiverOptions, sink: ReceiverSink) {
    this.#options = options;
    this.#sink = sink;
    this.#acknowledgedLsn = options.acknowledgedLsn;
    this.#system = new SystemCheck(options.systemId);
  }

  get connected(): boolean {
    return this.#link !== undefined;
  }

  /** The system identifier of the source. */
  get systemId(): string | undefined {
    return this.#system.systemId;
  }

  /** How far the server has sent, by its own account. */
  get serverLsn(): Lsn {
    return this.#link?.serverLsn ?? zeroLsn;
  }

  /** For benchmarks and tests. */
  get link(): ReplicationLink | undefined {
    return this.#link;
  }

  /** Connects for the first time; throws what stands against it. From then on errors go to the sink. */
  async start(): Promise<void> {
    const link = await this.#connectAgain(this.#options.slotInUseMs ?? 10_000, false);
    this.#running = this.#run(link);
  }

  /** The sink has room again. */
  room(): void {
    this.#link?.room();
    this.#onRoom?.();
  }

  /** The source is in trouble or going down: if we hold its walsender in a write, let go. */
  letGo(): void {
    this.#link?.letGo();
  }

  /** Asks the server for its position. */
  ask(): void {
    try {
      this.#link?.sendStatus(true);
    } catch (error) {
      this.#link?.destroy(error as Error);
    }
  }

  /** Drops the connection and begins again at the sink's position. */
  restart(): void {
    // Without a link one is being made, which notices by itself that the sink went back.
    if (!this.#link) return;
    this.#restarting = true;
    this.#link.destroy();
  }

  async close(): Promise<void> {
    const link = this.#link;
    this.#abort.abort();
    await link?.finish();
    await this.#running;
  }

  async #run(first: ReplicationLink): Promise<void> {
    try {
      for (let link = first; ;) {
        const began = performance.now();
        const reason = await link.closed;
        this.#acknowledgedLsn = maxLsn(this.#acknowledgedLsn ?? zeroLsn, link.acknowledgedLsn);
        this.#link = undefined;
        this.#sink.disconnected();
        if (this.#abort.signal.aborted) return;
        const held = reason instanceof PgweaveError && reason.code === 'held-too-long';
        if (held) {
          this.#options.emit({ type: 'log', level: 'debug', message: 'the reader is far behind: the replication connection is made again when there is room', fields: { slot: this.#options.slot } });
        } else if (!this.#restarting) {
          const final = finalError(reason, this.#options);
          if (final) throw final;
          this.#options.emit({ type: 'counter', name: 'reconnects', by: 1 });
          this.#options.emit({ type: 'log', level: 'warn', message: `the replication connection broke: ${errorMessage(reason)}; connecting again`, fields: { slot: this.#options.slot } });
        }
        this.#restarting = false;
        link = await this.#connectAgain(this.#options.slotInUseMs ?? this.#walSenderTimeoutMs + 10_000, performance.now() - began < goodAfterMs);
      }
    } catch (error) {
      if (!(isInterrupted(error) && this.#abort.signal.aborted)) this.#sink.fail(error);
    }
  }

  /** Tries until it works or cannot work. On the first connection of all only a slot in use is waited for: a wrong address should be told at once. */
  async #connectAgain(slotInUseMs: number, shortLived: boolean): Promise<ReplicationLink> {
    const { signal } = this.#abort;
    const backoff = new Backoff();
    const began = performance.now();
    const first = !this.#everConnected;
    if (shortLived) await sleep(backoff.next(), signal);
    for (;;) {
      await this.#room();
      try {
        return await this.#connect();
      } catch (error) {
        if (signal.aborted) throw interruptedError();
        const inUse = error instanceof PgweaveError && error.code === 'slot-in-use';
        const final = finalError(error, this.#options);
        if (inUse ? performance.now() - began > slotInUseMs : first || final) throw final ?? error;
        await sleep(inUse ? Math.min(1000, backoff.next()) : backoff.next(), signal);
      }
    }
  }

  /** Waits until the sink can take anything: a connection that nobody reads only burdens the source. */
  async #room(): Promise<void> {
    const { signal } = this.#abort;
    while (this.#sink.full && !signal.aborted) {
      await new Promise<void>((resolve) => {
        this.#onRoom = resolve;
        signal.addEventListener('abort', () => resolve(), { once: true });
      });
      this.#onRoom = undefined;
    }
  }

  async #connect(): Promise<ReplicationLink> {
    const { source, job, slot, emit } = this.#options;
    const { signal } = this.#abort;
    const session = await ReplicationSession.open(source, { role: 'replication', side: 'the source', signal, ...(job === undefined ? {} : { job }) });
    try {
      const switchLsn = await this.#system.look(session, emit);
      if (switchLsn !== undefined) this.#sink.failedOver(switchLsn);
      await this.#checkSlot(session);
      await this.#checkPublications(session);
      await this.#prepareSession(session);
      await failpoint('receive.before-start');
      // A prepared transaction may lie before what is already confirmed: the server's own position leaves it in.
      const startLsn = this.#sink.startLsn;
      const lsn = this.#options.twoPhase ? zeroLsn : startLsn;
      const stream = await session.startReplication({ slot, lsn, options: pgoutputOptions(session.serverVersion, this.#options) }).catch((error: unknown) => {
        throw sqlstateOf(error) === sqlstate.objectInUse ? inUseError(slot, undefined, undefined, error) : error;
      });
      if (signal.aborted || this.#sink.startLsn < startLsn) {
        stream.socket.destroy();
        throw signal.aborted ? interruptedError() : new PgweaveError('rewound', 'the reader went back while the connection was made', { retry: 'backoff' });
      }
      this.#formerPid = stream.backendPid;
      this.#sink.connected();
      emit({ type: 'log', level: 'debug', message: `streaming from slot ${slot} at ${formatLsn(lsn)}`, fields: { slot, lsn: formatLsn(lsn), backend: stream.backendPid } });
      const link = new ReplicationLink(stream, this.#sink, livenessFor(this.#walSenderTimeoutMs), this.#options);
      this.#link = link;
      this.#everConnected = true;
      return link;
    } catch (error) {
      await session.close();
      throw error;
    }
  }

  async #checkSlot(replication: ReplicationSession): Promise<void> {
    const { slot } = this.#options;
    const { session } = replication;
    const [row] = await session.query<SlotStateRow & Record<string, unknown>>(slotState(slot, replication.serverVersion));
    checkSlot(slot, row, { database: session.spec.database, acknowledgedLsn: this.#acknowledgedLsn });
    if (row?.confirmed_flush_lsn) this.#acknowledgedLsn = maxLsn(this.#acknowledgedLsn ?? zeroLsn, parseLsn(row.confirmed_flush_lsn));
    if (row?.active_pid === null || row?.active_pid === undefined) return;
    // The walsender of our own broken connection may not have noticed yet.
    if (row.active_pid === this.#formerPid) {
      await session.query(terminateOwn(row.active_pid));
    } else {
      const [user] = await session.query<SlotUserRow & Record<string, unknown>>(slotUser(row.active_pid));
      throw inUseError(slot, row.active_pid, user);
    }
    throw inUseError(slot, row.active_pid, undefined);
  }

  /** From 18 on the server leaves changes of a publication out that does not exist, with a warning in its log: never let that pass for an idle source. */
  async #checkPublications({ session }: ReplicationSession): Promise<void> {
    const rows = await session.query<{ name: string }>('select pubname::text as name from pg_catalog.pg_publication');
    const known = new Set(rows.map((row) => row.name));
    const missing = this.#options.publications.filter((name) => !known.has(name));
    if (missing.length > 0) throw publicationMissing(this.#options.slot, missing, undefined);
  }

  async #prepareSession({ session }: ReplicationSession): Promise<void> {
    const { walSenderTimeoutMs, decodingMemory = '256MB' } = this.#options;
    await session.query(`set logical_decoding_work_mem = '${decodingMemory.replaceAll("'", '')}'`);
    if (walSenderTimeoutMs !== undefined) await session.query(`set wal_sender_timeout = ${Math.trunc(walSenderTimeoutMs)}`);
    const { setting } = await session.one<{ setting: string }>(`select setting from pg_catalog.pg_settings where name = 'wal_sender_timeout'`);
    this.#walSenderTimeoutMs = Number(setting);
  }
}

function inUseError(slot: string, pid: number | undefined, user: SlotUserRow | undefined, cause?: unknown): PgweaveError {
  const who = [
    user?.application ? `"${user.application}"` : undefined, pid === undefined ? undefined : `process ${pid}`, user?.role ? `role ${user.role}` : undefined, user?.client ? `from ${user.client}` : undefined,
    user?.since ? `since ${user.since} UTC` : undefined,
  ].filter((part) => part !== undefined).join(', ');
  return new PgweaveError('slot-in-use', `slot ${slot} is in use${who ? ` by ${who}` : ''}`, {
    retry: 'backoff', hint: 'Another follower of this job is running. Stop it, or choose another job name with --job. A follower that died on a lost machine lets go after wal_sender_timeout.', details: { slot, pid }, cause,
  });
}

function publicationMissing(slot: string, publications: readonly string[], cause: unknown): PgweaveError {
  return new PgweaveError('publication-missing', `the source has no publication ${publications.join(', ')}, or had none when the changes were made`, {
    retry: 'never', cause, details: { slot, publications },
    hint: 'It must exist for as long as the slot is used, from before the changes that it is to publish. Begin again with a new copy: pgweave cleanup, then pgweave clone --follow.',
  });
}

/** What a person must see to, undefined where trying again may help. */
function finalError(error: unknown, options: ReceiverOptions): unknown {
  if (error instanceof PgweaveError) return error.retry === 'backoff' ? undefined : error;
  if (sqlstateOf(error) === sqlstate.undefinedObject) {
    return publicationMissing(options.slot, options.publications, error);
  }
  const state = sqlstateOf(error);
  // Classes 53 and 57: short of resources, stopped by somebody. 58: the server could not read a file. A socket error has no state.
  if (isTransient(error) || state === undefined || /^(53|57|58)/.test(state)) return undefined;
  return new PgweaveError('stream-refused', `the source refuses to stream: ${errorMessage(error)}`, { retry: 'manual', hint: 'The server\'s log says more.', cause: error, details: { sqlstate: state } });
}
