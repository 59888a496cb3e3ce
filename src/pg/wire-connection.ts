import type { Socket } from 'node:net';
import { interruptedError, PgweaveError } from '../core/errors.ts';
import type { ConnectionSpec } from './conninfo.ts';
import { ServerError } from './server-error.ts';
import { Session, type SessionOptions } from './session.ts';

/** Backend messages, by their type byte. Source: PostgreSQL documentation, "Message Formats". */
export const backend = { copyData: 0x64, copyDone: 0x63, commandComplete: 0x43, dataRow: 0x44, error: 0x45, copyIn: 0x47, copyOut: 0x48, readyForQuery: 0x5a } as const;

/** Text values of one row, in the order of the select list. */
export type WireRow = readonly (string | null)[];

export interface WireResult {
  /** Rows of the last statement that returned some. */
  readonly rows: readonly WireRow[];
  /** Command tags, such as `COPY 3`, one a statement. */
  readonly tags: readonly string[];
}

/** Takes messages as they come. */
type OnMessage = (type: number, body: Buffer) => void;

const copyDoneFrame = Buffer.from([0x63, 0, 0, 0, 4]);

/**
 * A connection whose socket was taken over after node-postgres had authenticated: simple queries, and COPY data as bytes. One operation at a time.
 * Row values never become strings here. It is closed by an error of the socket; a server's error leaves it usable.
 */
export class WireConnection implements AsyncDisposable {
  readonly socket: Socket;
  readonly pid: number;
  readonly serverVersion: number;
  readonly #spec: ConnectionSpec;
  readonly #options: SessionOptions;
  #rest: Buffer | undefined;
  #onMessage: OnMessage | undefined;
  #onBytes: ((chunk: Buffer) => void) | undefined;
  #onCopyData: ((chunk: Buffer) => void) | undefined;
  #fail: ((error: Error) => void) | undefined;
  #lost: Error | undefined;
  #onAbort: (() => void) | undefined;

  private constructor(session: Session, spec: ConnectionSpec, options: SessionOptions) {
    this.#spec = { ...spec, hosts: [session.host] };
    this.#options = options;
    this.pid = session.pid;
    this.serverVersion = session.serverVersion;
    this.socket = session.takeSocket();
    this.socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    this.socket.on('error', (error) => this.#end(error));
    this.socket.on('close', () => this.#end(new Error('the connection was closed')));
    this.socket.on('end', () => this.#end(new Error('the server closed the connection')));
    this.socket.resume();
    if (options.signal) {
      this.#onAbort = () => void this.#abort();
      options.signal.addEventListener('abort', this.#onAbort, { once: true });
    }
  }

  /** Connects as {@link Session.open} does, with the same session settings, and takes the socket over. */
  static async open(spec: ConnectionSpec, options: SessionOptions): Promise<WireConnection> {
    // The signal is handled here: a session would close a socket that is no longer its own.
    const { signal, ...rest } = options;
    if (signal?.aborted) throw interruptedError();
    return new WireConnection(await Session.open(spec, rest), spec, options);
  }

  /** Why the connection was lost, if it was. */
  get lost(): Error | undefined {
    return this.#lost;
  }

  /** Runs statements by simple query. Throws ServerError, or PgweaveError `connection-lost`. COPY must not be among them. */
  query(sql: string): Promise<WireResult> {
    return new Promise<WireResult>((resolve, reject) => {
      let rows: WireRow[] = [];
      let afterTag = false;
      const tags: string[] = [];
      let error: ServerError | undefined;
      this.begin((type, body) => {
        if (type === backend.dataRow) {
          if (afterTag) rows = [];
          afterTag = false;
          rows.push(parseDataRow(body));
        } else if (type === backend.commandComplete) {
          tags.push(body.toString('latin1', 0, body.length - 1));
          afterTag = true;
        } else if (type === backend.error) error ??= ServerError.parse(body);
        else if (type === backend.readyForQuery) {
          this.finish();
          if (error) reject(error);
          else resolve({ rows, tags });
        }
      }, reject);
      this.sendQuery(sql);
    });
  }

  /** Starts an operation: messages go to `onMessage`, a lost connection to `fail`. */
  begin(onMessage: OnMessage, fail: (error: Error) => void): void {
    if (this.#onMessage) throw new PgweaveError('connection-busy', 'the connection already runs an operation');
    if (this.#lost) return fail(this.#lostError());
    this.#onMessage = onMessage;
    this.#fail = fail;
  }

  /** Ends an operation. */
  finish(): void {
    this.#onMessage = undefined;
    this.#onBytes = undefined;
    this.#onCopyData = undefined;
    this.#fail = undefined;
  }

  /** From the first CopyData frame on, within the chunk in hand too, bytes go to `onBytes` unparsed, until {@link giveBack}. */
  takeOver(onBytes: (chunk: Buffer) => void): void {
    this.#onCopyData = onBytes;
  }

  /** Back to messages, beginning with these bytes. A notice among the rows is read so; the next CopyData frame goes to `onBytes` again. */
  giveBack(bytes: Buffer): void {
    this.#onBytes = undefined;
    if (bytes.length > 0) this.#receive(bytes);
  }

  sendQuery(sql: string): void {
    const text = Buffer.from(sql, 'utf8');
    const frame = Buffer.allocUnsafe(text.length + 6);
    frame[0] = 0x51;
    frame.writeInt32BE(text.length + 5, 1);
    text.copy(frame, 5);
    frame[frame.length - 1] = 0;
    this.socket.write(frame);
  }

  sendCopyDone(): void {
    this.socket.write(copyDoneFrame);
  }

  sendCopyFail(reason: string): void {
    const text = Buffer.from(`${reason}\0`, 'utf8');
    const frame = Buffer.allocUnsafe(5);
    frame[0] = 0x66;
    frame.writeInt32BE(text.length + 4, 1);
    this.socket.write(Buffer.concat([frame, text]));
  }

  /** Cancels what runs, from a second connection. Never throws. */
  async cancel(): Promise<void> {
    try {
      await using other = await Session.open(this.#spec, { role: 'cancel', ...(this.#options.job === undefined ? {} : { job: this.#options.job }) });
      await other.query('select pg_catalog.pg_cancel_backend($1)', [this.pid]);
    } catch {
      // The server is gone or the backend has ended: nothing is left to cancel.
    }
  }

  /** Says goodbye where nothing runs, and closes the socket. An operation that runs fails with `connection-lost`. */
  close(): Promise<void> {
    if (this.#onAbort) this.#options.signal?.removeEventListener('abort', this.#onAbort);
    this.#onAbort = undefined;
    if (!this.#lost && !this.#onMessage) this.socket.end(Buffer.from([0x58, 0, 0, 0, 4]));
    else this.socket.destroy();
    this.#end(new Error('the connection was closed'));
    return new Promise((resolve) => {
      if (this.socket.closed) return resolve();
      const timer = setTimeout(() => this.socket.destroy(), 2000);
      this.socket.once('close', () => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #receive(incoming: Buffer): void {
    if (this.#onBytes) return this.#onBytes(incoming);
    const chunk = this.#rest ? Buffer.concat([this.#rest, incoming]) : incoming;
    this.#rest = undefined;
    let at = 0;
    while (at < chunk.length) {
      if (chunk[at] === backend.copyData && this.#onCopyData) {
        this.#onBytes = this.#onCopyData;
        this.#onBytes(at === 0 ? chunk : chunk.subarray(at));
        return;
      }
      if (chunk.length - at < 5) break;
      const end = at + 1 + chunk.readInt32BE(at + 1);
      if (end > chunk.length) break;
      this.#onMessage?.(chunk[at]!, chunk.subarray(at + 5, end));
      at = end;
    }
    if (at < chunk.length) this.#rest = chunk.subarray(at);
  }

  #end(error: Error): void {
    if (this.#lost) return;
    this.#lost = error;
    const fail = this.#fail;
    this.finish();
    this.socket.destroySoon();
    fail?.(this.#lostError());
  }

  #lostError(): Error {
    if (this.#options.signal?.aborted) return interruptedError();
    const where = this.#options.side ?? 'the server';
    return new PgweaveError('connection-lost', `the connection to ${where} was lost: ${this.#lost?.message ?? 'closed'}`, { hint: 'Check the network and the server\'s log. The same command goes on from where it stopped.', retry: 'backoff', cause: this.#lost });
  }

  async #abort(): Promise<void> {
    if (this.#onMessage) await this.cancel();
    await this.close();
  }
}

function parseDataRow(body: Buffer): (string | null)[] {
  const count = body.readInt16BE(0);
  const row: (string | null)[] = [];
  let at = 2;
  for (let i = 0; i < count; i += 1) {
    const length = body.readInt32BE(at);
    at += 4;
    if (length < 0) row.push(null);
    else {
      row.push(body.toString('utf8', at, at + length));
      at += length;
    }
  }
  return row;
}
