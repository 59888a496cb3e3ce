import type { Socket } from 'node:net';
import { createRequire } from 'node:module';
import { MessageChannel, Worker } from 'node:worker_threads';
import { interruptedError, PgweaveError } from '../core/errors.ts';
import type { Session } from '../pg/session.ts';
import { dumpError } from './dump-error.ts';
import { dumpWorkerSource } from './dump-worker-source.ts';

/** The version of PostgreSQL that `@electric-sql/pglite-tools` 0.4 compiles its pg_dump from. */
export const bundledDumpMajor = 18;

/**
 * Runs the pg_dump that comes with this package (WebAssembly, in a worker thread) over the socket of a session, which is used up by that. The worker
 * believes that it connects: its start-up is answered here, so that addresses, TLS and authentication are those of `Session`.
 */
export async function runBundledDump(session: Session, args: readonly string[], signal?: AbortSignal): Promise<string> {
  const greeting = await startupReply(session);
  const require = createRequire(import.meta.url);
  const { port1, port2 } = new MessageChannel();
  const wake = new Int32Array(new SharedArrayBuffer(4));
  const socket = session.takeSocket();
  const worker = new Worker(dumpWorkerSource, {
    eval: true, transferList: [port2], env: {}, stdout: true, stderr: true,
    workerData: { port: port2, wake, module: require.resolve('@electric-sql/pglite-tools/pg_dump'), args: ['-d', 'host=127.0.0.1 dbname=dump sslmode=disable gssencmode=disable', ...args] },
  });
  let onAbort: (() => void) | undefined;
  try {
    return await new Promise<string>((resolve, reject) => {
      onAbort = () => reject(interruptedError());
      signal?.addEventListener('abort', onAbort, { once: true });
      if (signal?.aborted) reject(interruptedError());
      relay(socket, greeting, {
        receive: (listener) => port1.on('message', listener),
        send: (message) => {
          port1.postMessage(message);
          Atomics.add(wake, 0, 1);
          Atomics.notify(wake, 0);
        },
        lost: (error) => reject(new PgweaveError('connection-lost', `the connection to the source was lost while its schema was read: ${error?.message ?? 'closed by the server'}`, { hint: 'Run the same command again.', retry: 'backoff', cause: error })),
      });
      worker.once('message', (result: { readonly sql?: string; readonly error?: string }) => (result.sql === undefined ? reject(dumpError(result.error ?? '')) : resolve(result.sql)));
      worker.once('error', (error) => reject(dumpError(String((error as Error).message))));
      worker.once('exit', () => reject(dumpError('its thread ended without a result')));
    });
  } finally {
    if (onAbort) signal?.removeEventListener('abort', onAbort);
    socket.destroy();
    port1.close();
    await worker.terminate();
  }
}

interface WorkerSide {
  receive(listener: (bytes: Uint8Array) => void): void;
  /** Bytes from the server, or `null`: the answer is complete. */
  send(message: Uint8Array | null): void;
  lost(error: Error | undefined): void;
}

const codes = { ssl: 80_877_103, gss: 80_877_104, cancel: 80_877_102 };

/**
 * Passes protocol messages between worker and server. The worker stands still until its request is answered, so that an answer's end has to be known: the
 * byte for an encryption request, ReadyForQuery for the rest. Source: PostgreSQL documentation, "Frontend/Backend Protocol", "Message Flow".
 */
function relay(socket: Socket, greeting: Buffer, worker: WorkerSide): void {
  let starting = true;
  let pending = Buffer.alloc(0);
  let unread: Buffer = Buffer.alloc(0);
  let asked = false;
  let ended = false;

  worker.receive((bytes) => {
    pending = Buffer.concat([pending, bytes]);
    let expectsAnswer = false;
    while (starting && pending.length >= 8 && pending.length >= pending.readInt32BE(0)) {
      const code = pending.readInt32BE(4);
      pending = pending.subarray(pending.readInt32BE(0));
      if (code === codes.ssl || code === codes.gss) worker.send(Buffer.from('N'));
      else {
        starting = false;
        worker.send(greeting);
      }
    }
    while (!starting && pending.length >= 5 && pending.length >= pending.readInt32BE(1) + 1) {
      const type = String.fromCharCode(pending[0]!);
      const message = pending.subarray(0, pending.readInt32BE(1) + 1);
      pending = pending.subarray(message.length);
      ended ||= type === 'X';
      socket.write(message);
      expectsAnswer = type === 'Q' || type === 'S';
    }
    if (expectsAnswer) asked = true;
    else worker.send(null);
  });

  socket.on('data', (chunk: Buffer) => {
    worker.send(new Uint8Array(chunk));
    unread = unread.length > 0 ? Buffer.concat([unread, chunk]) : chunk;
    let at = 0;
    while (unread.length - at >= 5 && unread.length - at >= unread.readInt32BE(at + 1) + 1) {
      const ready = unread[at] === 0x5a;
      at += unread.readInt32BE(at + 1) + 1;
      if (ready && asked) {
        asked = false;
        worker.send(null);
      }
    }
    unread = unread.subarray(at);
  });
  socket.on('error', (error) => worker.lost(error));
  socket.on('close', () => {
    if (!ended) worker.lost(undefined);
  });
  socket.resume();
}

/** AuthenticationOk, the parameters that libpq and pg_dump look at, BackendKeyData, ReadyForQuery. */
async function startupReply(session: Session): Promise<Buffer> {
  const names = ['server_version', 'server_encoding', 'client_encoding', 'DateStyle', 'IntervalStyle', 'TimeZone', 'integer_datetimes', 'standard_conforming_strings', 'is_superuser', 'session_authorization'];
  const row = await session.one<{ values: string[] }>(`select array(select pg_catalog.current_setting(name) from pg_catalog.unnest($1::pg_catalog.text[]) with ordinality as names (name, place) order by place) as values`, [names]);
  const message = (type: string, body: Buffer) => {
    const head = Buffer.alloc(5);
    head.write(type, 0, 'latin1');
    head.writeInt32BE(body.length + 4, 1);
    return Buffer.concat([head, body]);
  };
  const parameters = names.map((name, i) => message('S', Buffer.from(`${name}\0${row.values[i]}\0`)));
  return Buffer.concat([message('R', Buffer.alloc(4)), ...parameters, message('K', Buffer.alloc(8)), message('Z', Buffer.from('I'))]);
}
