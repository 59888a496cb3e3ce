import { connect, createServer, type Server, type Socket } from 'node:net';

/**
 * A pooler as small as can be, in front of a real server: it answers the startup itself with a process id of its own making, as PgBouncer does, and sends queries
 * over backends that it opened. `transaction`: all clients share one backend; `session`: one backend a client. It can refuse startup options as PgBouncer does.
 * Understands what node-postgres sends; transactions of two clients at once are not told apart.
 */
export interface PoolerOptions {
  readonly port: number;
  readonly user: string;
  readonly database: string;
  readonly mode: 'transaction' | 'session';
  readonly refuseOptions?: boolean;
}

export interface Pooler extends AsyncDisposable {
  readonly port: number;
}

function message(type: string, body: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.write(type, 0);
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}

function startupMessage(user: string, database: string): Buffer {
  const body = Buffer.from(`user\0${user}\0database\0${database}\0\0`);
  const head = Buffer.alloc(8);
  head.writeInt32BE(body.length + 8, 0);
  head.writeInt32BE(196_608, 4);
  return Buffer.concat([head, body]);
}

/** Opens a backend and resolves with its socket and the ParameterStatus messages that the client wants to see. */
function openBackend(options: PoolerOptions): Promise<{ socket: Socket; parameters: Buffer }> {
  return new Promise((resolve, reject) => {
    const socket = connect(options.port, '127.0.0.1');
    socket.on('error', reject);
    socket.write(startupMessage(options.user, options.database));
    let buffer = Buffer.alloc(0);
    const parameters: Buffer[] = [];
    const onData = (chunk: Buffer) => {
      buffer = Buffer.concat([buffer, chunk]);
      while (buffer.length >= 5 && buffer.length >= buffer.readInt32BE(1) + 1) {
        const length = buffer.readInt32BE(1) + 1;
        const type = String.fromCharCode(buffer[0]!);
        if (type === 'S') parameters.push(Buffer.from(buffer.subarray(0, length)));
        buffer = buffer.subarray(length);
        if (type === 'Z') {
          socket.off('data', onData);
          socket.removeAllListeners('error');
          socket.on('error', () => socket.destroy());
          resolve({ socket, parameters: Buffer.concat(parameters) });
        }
      }
    };
    socket.on('data', onData);
  });
}

export async function startPooler(options: PoolerOptions): Promise<Pooler> {
  const sockets = new Set<Socket>();
  const shared = options.mode === 'transaction' ? await openBackend(options) : undefined;
  if (shared) sockets.add(shared.socket);
  let current: Socket | undefined;
  shared?.socket.on('data', (chunk: Buffer) => void current?.write(chunk));
  let nextPid = 4_000_000;
  const server: Server = createServer((client) => {
    sockets.add(client);
    client.on('error', () => client.destroy());
    client.on('data', onStartup);
    function onStartup(chunk: Buffer): void {
      // SSLRequest
      if (chunk.length === 8 && chunk.readInt32BE(4) === 80_877_103) return void client.write('N');
      client.off('data', onStartup);
      if (options.refuseOptions && chunk.includes('options\0')) {
        client.end(message('E', Buffer.from('SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter: options\0\0')));
        return;
      }
      client.pause();
      void attach();
    }
    async function attach(): Promise<void> {
      const backend = shared ?? (await openBackend(options));
      sockets.add(backend.socket);
      const key = Buffer.alloc(8);
      key.writeInt32BE((nextPid += 1), 0);
      client.write(Buffer.concat([message('R', Buffer.alloc(4)), backend.parameters, message('K', key), message('Z', Buffer.from('I'))]));
      if (!shared) backend.socket.on('data', (chunk: Buffer) => void client.write(chunk));
      client.on('data', (chunk: Buffer) => {
        current = client;
        // Terminate: the client leaves, its backend stays with the pooler.
        if (chunk.length === 5 && chunk[0] === 0x58) client.end();
        else backend.socket.write(chunk);
      });
      client.on('close', () => {
        if (!shared) backend.socket.destroy();
      });
      client.resume();
    }
  });
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
  const address = server.address() as { port: number };
  return {
    port: address.port,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
