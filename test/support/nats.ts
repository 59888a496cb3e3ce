import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { sleep } from '../../src/core/abort.ts';

const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/usr/local/bin'].filter((f) => f !== '');
const binary = [process.env['PGWEAVE_NATS_SERVER'], ...folders.map((f) => join(f, 'nats-server'))].find((path) => path !== undefined && existsSync(path));

/**
 * Whether tests on NATS can run. Without a server they fail where CI is set, since a build that does not run them proves nothing; elsewhere they are left out,
 * with a line that says how to get it.
 */
export function hasNats(): boolean {
  if (binary !== undefined) return true;
  const how = 'The tests of the log on NATS need nats-server 2.9 or newer: apt-get install nats-server, or name one in PGWEAVE_NATS_SERVER.';
  if (process.env['CI']) throw new Error(how);
  process.stderr.write(`\n  ${how} They are NOT run now.\n\n`);
  return false;
}

/** A nats-server with JetStream on a port of its own, files in a folder of its own; stopped and removed by `await using`. */
export class NatsServer implements AsyncDisposable {
  readonly port: number;
  readonly #folder: string;
  readonly #args: readonly string[];
  #child: ChildProcess | undefined;

  private constructor(port: number, folder: string, args: readonly string[]) {
    this.port = port;
    this.#folder = folder;
    this.#args = args;
    process.on('exit', () => this.#child?.kill('SIGKILL'));
  }

  /** `args`: further flags, such as `--user`. */
  static async start(args: readonly string[] = []): Promise<NatsServer> {
    const server = new NatsServer(await freePort(), mkdtempSync(join(tmpdir(), 'pgwnats-')), args);
    await server.resume();
    return server;
  }

  get url(): string {
    return `nats://127.0.0.1:${this.port}`;
  }

  /** Starts it again where it was. */
  async resume(): Promise<void> {
    const child = spawn(binary!, ['-a', '127.0.0.1', '-p', String(this.port), '-js', '-sd', this.#folder, ...this.#args], { stdio: ['ignore', 'ignore', 'pipe'] });
    let said = '';
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    this.#child = child;
    for (let waited = 0; !(await answers(this.port)); waited += 20) {
      if (child.exitCode !== null || waited > 20_000) throw new Error(`nats-server did not start: ${said}`);
      await sleep(20);
    }
  }

  /** SIGKILL, or an orderly end. */
  async stop(how: 'kill' | 'orderly' = 'orderly'): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (!child || child.exitCode !== null) return;
    const ended = new Promise((resolve) => {
      child.once('exit', resolve);
    });
    child.kill(how === 'kill' ? 'SIGKILL' : 'SIGTERM');
    await ended;
  }

  /** Forgets everything that it stored; it must be stopped. */
  wipe(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop('kill');
    this.wipe();
  }
}


function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address ? address.port : 0));
    });
  });
}

/** Its first line is INFO, sent to whoever connects. */
function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port });
    const end = (up: boolean) => {
      socket.destroy();
      resolve(up);
    };
    socket.once('data', () => end(true));
    socket.once('error', () => end(false));
    socket.setTimeout(1000, () => end(false));
  });
}
