import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createHmac } from 'node:crypto';
import { connect } from 'node:net';
import { describe, expect, it, vi } from 'vitest';
import { sampleJob, startStreaming } from '../../test/support/sample-job.ts';
import { PgweaveError } from '../core/errors.ts';
import { JobStatus } from '../core/snapshot.ts';
import { StateFileWriter } from '../core/state-file.ts';
import { FolderControl } from './folder-control.ts';
import { ownJob, type JobActions } from './job-control.ts';
import { RemoteControl } from './remote-control.ts';
import { startServer } from './server.ts';
import { Webhook } from './webhook.ts';

const token = 'correct-horse-battery-staple';

describe('attached to an API', () => {
  it('follows the job, hands actions on, says when it is lost, and finds it again', async () => {
    const job = sampleJob({ tables: 5 });
    startStreaming(job, 1);
    const asked: string[] = [];
    const actions: JobActions = {
      pause: async () => void asked.push('pause'),
      resume: () => Promise.reject(new PgweaveError('not-paused', 'it is not paused', { hint: 'Nothing to do.' })),
      table: async (action, t) => void asked.push(`${action} ${t.schema}.${t.name}`),
      switchover: async (request) => void asked.push(`switchover ${JSON.stringify(request)}`),
    };
    const control = ownJob(() => job.status.read(), { jobs: 3 }, actions);
    const first = await startServer({ control, port: 0, token });
    await expect(RemoteControl.connect({ url: first.url })).rejects.toMatchObject({ code: 'token-required', hint: expect.stringContaining('PGWEAVE_API_TOKEN') as string });
    await using remote = await RemoteControl.connect({ url: `${first.url}/`, token });
    expect(remote.read().tables).toHaveLength(5);
    expect(remote.config()).toEqual({ jobs: 3 });
    expect(remote.canAct).toBe(true);
    await remote.actions!.pause();
    await remote.actions!.table('copy-again', { schema: 'public', name: 'orders' });
    await remote.actions!.switchover({ reverse: true }, new AbortController().signal);
    await expect(remote.actions!.resume()).rejects.toMatchObject({ code: 'not-paused', hint: 'Nothing to do.' });
    expect(asked).toEqual(['pause', 'copy-again public.orders', 'switchover {"reverse":true}']);

    job.send({ type: 'table-changes', table: { schema: 'public', name: 'events' }, inserts: 7, updates: 0, deletes: 0 });
    await vi.waitFor(() => expect(remote.read().tables.find((t) => t.name === 'events')!.inserts).toBe(7), { timeout: 10_000 });

    await first.close();
    await vi.waitFor(() => expect(remote.state()).toMatchObject({ running: false, note: expect.stringContaining('does not answer') as string }), { timeout: 10_000 });
    expect(remote.read().tables).toHaveLength(5);
    job.send({ type: 'phase', phase: 'switched-over' });
    await using _second = await startServer({ control, port: first.port, token });
    await vi.waitFor(() => expect(remote.read().phase).toBe('switched-over'), { timeout: 10_000 });
    expect(remote.state().running).toBe(true);
  });

  it('says what is wrong with an address', async () => {
    await expect(RemoteControl.connect({ url: 'localhost:1' })).rejects.toMatchObject({ code: 'usage' });
    await expect(RemoteControl.connect({ url: 'http://127.0.0.1:1' })).rejects.toMatchObject({ code: 'api-unreachable' });
  });
});

describe('attached to a folder', () => {
  it('waits for a state, follows it, and says when nothing writes it any more', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'pgweave-folder-'));
    try {
      using control = await FolderControl.open(dir, 'default');
      expect(control.state()).toMatchObject({ running: false, note: expect.stringContaining('No job has written') as string });
      const status = new JobStatus('default', 'clone');
      status.emit({ type: 'phase', phase: 'copying' });
      const writer = new StateFileWriter(dir, () => status.read(), { everyMs: 20 });
      await vi.waitFor(() => expect(control.read().phase).toBe('copying'), { timeout: 10_000 });
      expect(control.state()).toMatchObject({ running: true, mode: 'folder' });
      status.emit({ type: 'phase', phase: 'stopped' });
      await writer.close();
      await vi.waitFor(() => expect(control.state().running).toBe(false), { timeout: 10_000 });
      expect(control.state().note).toContain('Nothing runs now');
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  });
});

describe('webhook', () => {
  it('sends signed news, tries again where the receiver fails, and ends with the last of it', async () => {
    const got: { body: string; signature: string | undefined }[] = [];
    let answers = 0;
    const receiver = createServer((request: IncomingMessage, response) => {
      let body = '';
      request.on('data', (chunk: Buffer) => void (body += chunk.toString()));
      request.on('end', () => {
        answers += 1;
        response.statusCode = answers === 1 ? 503 : 200;
        response.end();
        if (response.statusCode === 200) got.push({ body, signature: request.headers['pgweave-signature'] as string | undefined });
      });
    });
    await new Promise<void>((resolve) => receiver.listen(0, '127.0.0.1', resolve));
    try {
      const job = sampleJob();
      const hook = new Webhook({ url: `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/services/secret-path`, secret: 'signing-secret' }, () => job.status.read());
      hook.look();
      job.clock.advance(10);
      job.send({ type: 'phase', phase: 'indexes' });
      hook.look();
      await vi.waitFor(() => expect(got).toHaveLength(1), { timeout: 10_000 });
      job.clock.advance(10);
      job.send({ type: 'phase', phase: 'done' });
      await hook[Symbol.asyncDispose]();
      expect(got.map(({ body }) => (JSON.parse(body) as { text: string }).text)).toEqual(['pgweave job default: indexes', 'pgweave job default: done']);
      expect(got[0]!.signature).toBe(`sha256=${createHmac('sha256', 'signing-secret').update(got[0]!.body).digest('hex')}`);
    } finally {
      receiver.close();
    }
  });

  it('refuses what is no URL', () => {
    const job = sampleJob();
    expect(() => new Webhook({ url: 'file:///etc/passwd' }, () => job.status.read())).toThrow(/not an http/);
  });
});

/** Speaks just enough of RFC 6455 to knock at the door. */
function knock(port: number, headers: Readonly<Record<string, string>>): Promise<{ status: number; socket: ReturnType<typeof connect>; text: () => string }> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1');
    let text = '';
    const all = { host: `127.0.0.1:${port}`, connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': '13', 'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==', ...headers };
    socket.on('connect', () => socket.write(`GET /api/v1/ws HTTP/1.1\r\n${Object.entries(all).map(([k, v]) => `${k}: ${v}`).join('\r\n')}\r\n\r\n`));
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
      const status = /^HTTP\/1\.1 (\d{3})/.exec(text);
      if (status) resolve({ status: Number(status[1]), socket, text: () => text });
    });
    socket.on('error', reject);
  });
}

describe('the WebSocket', () => {
  it('opens for the token in its subprotocols only, and for no foreign page', async () => {
    const job = sampleJob();
    await using server = await startServer({ control: ownJob(() => job.status.read(), {}, null), port: 0, token });
    const protocol = (secret: string) => `pgweave.feed, pgweave.token.${Buffer.from(secret).toString('base64url')}`;
    const tries: [Record<string, string>, number][] = [
      [{}, 401], [{ 'sec-websocket-protocol': protocol('wrong-token-of-some-length') }, 401], [{ 'sec-websocket-protocol': protocol(token), origin: 'https://evil.example' }, 403],
      [{ 'sec-websocket-protocol': protocol(token), host: 'evil.example' }, 403], [{ 'sec-websocket-protocol': protocol(token) }, 101],
      [{ 'sec-websocket-protocol': protocol(token), origin: server.url }, 101],
    ];
    for (const [headers, status] of tries) {
      const { status: got, socket, text } = await knock(server.port, headers);
      // The token is not sent back as the chosen subprotocol.
      const chosen = /^sec-websocket-protocol: (\S+)/im.exec(text())?.[1];
      expect({ headers, got, chosen }).toEqual({ headers, got: status, chosen: status === 101 ? 'pgweave.feed' : undefined });
      socket.destroy();
    }
  });

  it('sends away a client that floods it', async () => {
    const job = sampleJob();
    await using server = await startServer({ control: ownJob(() => job.status.read(), {}, null), port: 0 });
    const { status, socket } = await knock(server.port, {});
    expect(status).toBe(101);
    const closed = new Promise<void>((resolve) => socket.on('close', () => resolve()));
    // Masked text frames, and one that claims a gigabyte.
    const small = Buffer.from([0x81, 0x81, 0, 0, 0, 0, 0x78]);
    socket.write(Buffer.concat([...Array.from({ length: 1000 }, () => small), Buffer.from([0x82, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0])]));
    await closed;
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
  });

  it('reaches a WebSocket client with a snapshot and then with what changes', async () => {
    const job = sampleJob({ tables: 3 });
    await using server = await startServer({ control: ownJob(() => job.status.read(), {}, null), port: 0 });
    const { socket, text } = await knock(server.port, {});
    await vi.waitFor(() => expect(text()).toContain('"type":"snapshot"'), { timeout: 10_000 });
    job.send({ type: 'table-changes', table: { schema: 'public', name: 'orders' }, inserts: 41, updates: 0, deletes: 0 });
    await vi.waitFor(() => expect(text()).toMatch(/"type":"delta".*"inserts":41/), { timeout: 10_000 });
    socket.destroy();
  });

  it('tells everybody how the job ended before it goes', async () => {
    const job = sampleJob({ tables: 3 });
    const server = await startServer({ control: ownJob(() => job.status.read(), {}, null), port: 0 });
    const { socket, text } = await knock(server.port, {});
    await vi.waitFor(() => expect(text()).toContain('"type":"snapshot"'), { timeout: 10_000 });
    const closed = new Promise<void>((resolve) => socket.on('close', () => resolve()));
    job.send({ type: 'phase', phase: 'switched-over' });
    await server.close();
    await closed;
    expect(text()).toMatch(/"type":"delta".*"phase":"switched-over"/);
  });
});
