import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';

/**
 * A TCP proxy on 127.0.0.1 whose connections can be stalled, cut, limited and refused. `stall` stops moving bytes without closing anything, as a network
 * does that swallows packets; `drop` resets what is open.
 */
export class TcpProxy implements AsyncDisposable {
  readonly #server: Server;
  readonly #target: { readonly host: string; readonly port: number };
  readonly #pairs = new Set<{ readonly client: Socket; readonly server: Socket }>();
  #stalled = false;
  #refusing = false;
  #dropAfterBytes: number | undefined;
  #toClient = 0;
  #connections = 0;
  #cutAfter: number | undefined;
  #cuts = 0;

  private constructor(server: Server, target: { host: string; port: number }) {
    this.#server = server;
    this.#target = target;
  }

  /** `targetPort` may be changed later with `retarget`. */
  static async start(targetPort: number, host = '127.0.0.1'): Promise<TcpProxy> {
    const server = createServer({ pauseOnConnect: true });
    const proxy = new TcpProxy(server, { host, port: targetPort });
    server.on('connection', (client) => proxy.#accept(client));
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(0, '127.0.0.1', resolve);
    });
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Connections made so far. */
  get connections(): number {
    return this.#connections;
  }

  /** Connections that are open. */
  get open(): number {
    return this.#pairs.size;
  }

  /** Bytes sent to clients so far, over all connections. */
  get bytesToClient(): number {
    return this.#toClient;
  }

  /** A connection URI with this proxy's port in place of the server's. */
  uri(uri: string): string {
    const url = new URL(uri);
    url.hostname = '127.0.0.1';
    url.port = String(this.port);
    return url.toString();
  }

  /** New connections go to another port. */
  retarget(port: number): void {
    (this.#target as { port: number }).port = port;
  }

  stall(): void {
    this.#stalled = true;
    for (const { client, server } of this.#pairs) {
      client.pause();
      server.pause();
    }
  }

  resume(): void {
    this.#stalled = false;
    for (const { client, server } of this.#pairs) {
      client.resume();
      server.resume();
    }
  }

  /** Resets everything that is open. */
  drop(): void {
    for (const pair of this.#pairs) this.#cut(pair);
  }

  /** Resets the connection over which the next `bytes` bytes to a client have gone, once. */
  dropAfter(bytes: number): void {
    this.#dropAfterBytes = this.#toClient + bytes;
  }

  /** `dropAfter` was asked for and has not cut yet. */
  get armed(): boolean {
    return this.#dropAfterBytes !== undefined;
  }

  /** The next connection over which `bytes` have passed in both directions together is reset, once. */
  cutNext(bytes: number): void {
    this.#cutAfter = bytes;
  }

  /** Connections reset by `cutNext` so far. */
  get cuts(): number {
    return this.#cuts;
  }

  /** As `drop`. */
  cutAll(): void {
    this.drop();
  }

  /** While true new connections are reset at once. */
  refuse(refusing: boolean): void {
    this.#refusing = refusing;
  }

  async close(): Promise<void> {
    this.drop();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #accept(client: Socket): void {
    if (this.#refusing) {
      client.resetAndDestroy();
      return;
    }
    this.#connections += 1;
    const server = connect(this.#target.port, this.#target.host);
    const pair = { client, server };
    let passed = 0;
    this.#pairs.add(pair);
    client.setNoDelay(true);
    server.setNoDelay(true);
    const move = (from: Socket, to: Socket, toClient: boolean) => {
      from.on('data', (chunk: Buffer) => {
        let bytes = chunk;
        passed += chunk.length;
        if (this.#cutAfter !== undefined && passed >= this.#cutAfter) {
          this.#cutAfter = undefined;
          this.#cuts += 1;
          this.#cut(pair);
          return;
        }
        if (toClient) {
          const limit = this.#dropAfterBytes;
          if (limit !== undefined && this.#toClient + bytes.length >= limit) {
            // The cut is exact: the bytes before it arrive, then the connection ends.
            bytes = bytes.subarray(0, Math.max(0, limit - this.#toClient));
            this.#toClient += bytes.length;
            this.#dropAfterBytes = undefined;
            from.pause();
            to.write(bytes, () => this.#cut(pair));
            return;
          }
          this.#toClient += bytes.length;
        }
        if (!to.write(bytes)) {
          from.pause();
          to.once('drain', () => {
            if (!this.#stalled) from.resume();
          });
        }
      });
      from.on('end', () => to.end());
      from.on('error', () => this.#cut(pair));
      from.on('close', () => this.#cut(pair));
    };
    move(client, server, false);
    move(server, client, true);
    if (this.#stalled) server.pause();
    else client.resume();
  }

  #cut(pair: { readonly client: Socket; readonly server: Socket }): void {
    if (!this.#pairs.delete(pair)) return;
    for (const socket of [pair.client, pair.server]) {
      // A reset before the connection stands is an error in Node: then plain destroy.
      if (socket.connecting) socket.destroy();
      else socket.resetAndDestroy();
    }
  }
}
