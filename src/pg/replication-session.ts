import type { Socket } from 'node:net';
import { interruptedError, PgweaveError } from '../core/errors.ts';
import type { ConnectionSpec } from './conninfo.ts';
import { quoteIdent } from './identifiers.ts';
import { formatLsn, parseLsn, type Lsn } from './lsn.ts';
import { ServerError } from './server-error.ts';
import { Session, type SessionOptions } from './session.ts';

export interface SystemIdentity {
  /** Of the cluster; a physical copy and a promoted standby have the same. */
  readonly systemId: string;
  /** Rises by one with every promotion. */
  readonly timeline: number;
  /** End of WAL that is flushed. */
  readonly xlogPos: Lsn;
  readonly database: string;
}

export interface CreateSlotOptions {
  readonly name: string;
  /** Dropped with the connection. */
  readonly temporary?: boolean;
  /** export: a name that other sessions can import until this connection's next command; use: this connection's own open transaction; default nothing. */
  readonly snapshot?: 'export' | 'nothing' | 'use';
  /** PREPARE TRANSACTION is decoded when it happens (15 and newer). */
  readonly twoPhase?: boolean;
  /** Kept on standbys that synchronise slots (17 and newer). */
  readonly failover?: boolean;
}

export interface CreatedSlot {
  readonly name: string;
  /** From here on changes come; the snapshot shows what was committed before. */
  readonly consistentPoint: Lsn;
  readonly snapshotName: string | undefined;
}

export interface StartReplicationOptions {
  readonly slot: string;
  /** The server begins at this or at the slot's confirmed_flush_lsn, whichever is later. */
  readonly lsn: Lsn;
  /** Options of pgoutput by name, such as proto_version. */
  readonly options: Readonly<Record<string, string>>;
}

/** A connection in CopyBoth mode, paused. */
export interface ReplicationStream {
  readonly socket: Socket;
  /** What came in the same reads behind CopyBothResponse: the first bytes of the stream. */
  readonly rest: Buffer;
  readonly backendPid: number;
}

/** A walsender connection to one database. Source: PostgreSQL documentation, "Streaming Replication Protocol". */
export class ReplicationSession implements AsyncDisposable {
  readonly #session: Session;
  readonly #signal: AbortSignal | undefined;

  private constructor(session: Session, signal: AbortSignal | undefined) {
    this.#session = session;
    this.#signal = signal;
  }

  /** Throws a PgweaveError with a hint; the role needs REPLICATION. */
  static async open(spec: ConnectionSpec, options: Omit<SessionOptions, 'replication'>): Promise<ReplicationSession> {
    return new ReplicationSession(await Session.open(spec, { ...options, replication: true }), options.signal);
  }

  get serverVersion(): number {
    return this.#session.serverVersion;
  }

  /** Process id of the walsender. */
  get pid(): number {
    return this.#session.pid;
  }

  /** For SQL: a walsender of a database runs simple queries too, without parameters. */
  get session(): Session {
    return this.#session;
  }

  async identifySystem(): Promise<SystemIdentity> {
    const row = await this.#session.one<{ systemid: string; timeline: string | number | bigint; xlogpos: string; dbname: string }>('IDENTIFY_SYSTEM');
    return { systemId: row.systemid, timeline: Number(row.timeline), xlogPos: parseLsn(row.xlogpos), database: row.dbname };
  }

  /**
   * Creates a logical slot of the plugin pgoutput; waits until transactions that run at this moment have ended. Throws the server's error (SQLSTATE 42710: the name
   * is taken, 53400: no slot is free) or `not-supported` where the server is too old for an option.
   */
  async createLogicalSlot(options: CreateSlotOptions): Promise<CreatedSlot> {
    const { name, temporary = false, snapshot = 'nothing', twoPhase = false, failover = false } = options;
    if (twoPhase && this.serverVersion < 150_000) throw new PgweaveError('not-supported', 'two-phase slots need PostgreSQL 15');
    if (failover && this.serverVersion < 170_000) throw new PgweaveError('not-supported', 'failover slots need PostgreSQL 17');
    const begin = `CREATE_REPLICATION_SLOT ${quoteIdent(name)} ${temporary ? 'TEMPORARY ' : ''}LOGICAL pgoutput`;
    // The list of options in parentheses is of version 15.
    const words = { export: 'EXPORT_SNAPSHOT', nothing: 'NOEXPORT_SNAPSHOT', use: 'USE_SNAPSHOT' };
    const list = [`SNAPSHOT '${snapshot}'`, ...(twoPhase ? ['TWO_PHASE true'] : []), ...(failover ? ['FAILOVER true'] : [])];
    const command = this.serverVersion >= 150_000 ? `${begin} (${list.join(', ')})` : `${begin} ${words[snapshot]}`;
    const row = await this.#session.one<{ slot_name: string; consistent_point: string; snapshot_name: string | null }>(command);
    return { name: row.slot_name, consistentPoint: parseLsn(row.consistent_point), snapshotName: row.snapshot_name ?? undefined };
  }

  /** Drops a slot; `wait`: until whoever uses it has let go. Throws the server's error (42704: there is none, 55006: in use). */
  async dropSlot(name: string, options: { readonly wait?: boolean } = {}): Promise<void> {
    await this.#session.query(`DROP_REPLICATION_SLOT ${quoteIdent(name)}${options.wait ? ' WAIT' : ''}`);
  }

  /**
   * Begins to stream and hands the socket over; this session is used up. Throws the server's error as ServerError (55006: the slot is in use, 55000: it is lost or
   * still being made, 42704: there is none).
   */
  async startReplication(options: StartReplicationOptions): Promise<ReplicationStream> {
    const list = Object.entries(options.options).map(([name, value]) => `${quoteIdent(name)} '${value.replaceAll("'", "''")}'`);
    const command = `START_REPLICATION SLOT ${quoteIdent(options.slot)} LOGICAL ${formatLsn(options.lsn)}${list.length > 0 ? ` (${list.join(', ')})` : ''}`;
    const backendPid = this.#session.pid;
    const socket = this.#session.takeSocket();
    try {
      const text = Buffer.from(`${command}\0`, 'utf8');
      const query = Buffer.alloc(5 + text.length);
      query[0] = 0x51;
      query.writeInt32BE(4 + text.length, 1);
      text.copy(query, 5);
      socket.write(query);
      return { socket, rest: await copyBothResponse(socket, this.#signal), backendPid };
    } catch (error) {
      socket.destroy();
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.#session.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** The value of pgoutput's publication_names: quoted identifiers, separated by commas. */
export function publicationNames(names: readonly string[]): string {
  return names.map(quoteIdent).join(',');
}

/** Reads until CopyBothResponse; returns the bytes behind it, and leaves the socket paused. */
function copyBothResponse(socket: Socket, signal: AbortSignal | undefined): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    let received: Buffer = Buffer.alloc(0);
    const done = (finish: () => void) => {
      socket.pause();
      socket.off('data', onData);
      socket.off('error', onError);
      socket.off('close', onClose);
      signal?.removeEventListener('abort', onAbort);
      finish();
    };
    const onError = (error: Error) => done(() => reject(error));
    const onClose = () => done(() => reject(new PgweaveError('connection-lost', 'the server closed the connection before it began to stream', { retry: 'backoff' })));
    const onAbort = () => done(() => reject(interruptedError()));
    const onData = (chunk: Buffer) => {
      received = received.length === 0 ? chunk : Buffer.concat([received, chunk]);
      for (let at = 0; received.length - at >= 5;) {
        const end = at + 1 + received.readInt32BE(at + 1);
        if (received.length < end) break;
        const kind = received[at];
        const body = received.subarray(at + 5, end);
        if (kind === 0x57) return done(() => resolve(received.subarray(end)));
        if (kind === 0x45) return done(() => reject(ServerError.parse(body)));
        at = end;
        received = received.subarray(at);
        at = 0;
      }
    };
    if (signal?.aborted) return reject(interruptedError());
    socket.on('data', onData);
    socket.once('error', onError);
    socket.once('close', onClose);
    signal?.addEventListener('abort', onAbort, { once: true });
    socket.resume();
  });
}
