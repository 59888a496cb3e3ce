import type { FastifyInstance } from 'fastify';
import { connect } from 'node:net';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { z } from 'zod';
import { sampleJob, startStreaming } from '../../test/support/sample-job.ts';
import { PgweaveError } from '../core/errors.ts';
import { rememberSecret } from '../core/redact.ts';
import { ownJob, type JobActions, type SwitchoverRequest } from './job-control.ts';
import { buildServer, startServer, type ServerOptions } from './server.ts';

const token = 'correct-horse-battery-staple';
const asked: string[] = [];
const cleanUps: (() => Promise<void>)[] = [];
afterEach(async () => {
  asked.length = 0;
  for (const clean of cleanUps.splice(0)) await clean();
});

function fakeActions(over: Partial<JobActions> = {}): JobActions {
  return {
    pause: async () => void asked.push('pause'),
    resume: async () => void asked.push('resume'),
    table: async (action, t) => void asked.push(`${action} ${t.schema}.${t.name}`),
    switchover: async (request) => void asked.push(`switchover ${JSON.stringify(request)}`),
    checks: async () => [{ name: 'lag', status: 'ok', detail: '0 B' }],
    ...over,
  };
}

async function build(options: Partial<ServerOptions> & { actions?: JobActions | null } = {}): Promise<{ app: FastifyInstance; job: ReturnType<typeof sampleJob> }> {
  const job = sampleJob({ tables: 12 });
  startStreaming(job, 1);
  const app = await buildServer({ control: ownJob(() => job.status.read(), { jobs: 4 }, options.actions === undefined ? fakeActions() : options.actions), port: 0, ...options });
  cleanUps.push(() => app.close());
  await app.ready();
  return { app, job };
}

const headers = { host: '127.0.0.1:7654' };
const error = (response: { json(): unknown }) => (response.json() as { error: { code: string; message: string; hint: string | null } }).error;

interface Operation {
  readonly parameters?: { name: string; in: string; schema: Record<string, unknown> }[];
  readonly responses: Record<string, { content?: Record<string, { schema: Record<string, unknown> }> }>;
}
interface Document { readonly openapi: string; readonly paths: Record<string, Record<string, Operation>> }

describe('the API and its own description', () => {
  it('answers every operation as the OpenAPI document says', async () => {
    const { app } = await build();
    const document = (await app.inject({ url: '/api/docs/json', headers })).json() as Document;
    expect(document.openapi).toBe('3.1.0');
    const values: Record<string, string> = { schema: 'public', name: 'orders', action: 'retry' };
    let operations = 0;
    for (const [path, methods] of Object.entries(document.paths)) {
      for (const [method, operation] of Object.entries(methods)) {
        operations += 1;
        const url = path.replaceAll(/\{(\w+)\}/g, (_all, name: string) => values[name] ?? `no value for ${name}`);
        const response = await app.inject({ method: method.toUpperCase() as 'GET' | 'POST', url, headers });
        const where = `${method} ${path} ${response.statusCode}`;
        const described = operation.responses[String(response.statusCode)];
        const [type, content] = Object.entries(described?.content ?? {})[0] ?? ['no such answer is described', { schema: {} }];
        const fits = type !== 'application/json' || z.fromJSONSchema(content.schema).safeParse(response.json()).success;
        expect({ where, fits, type: String(response.headers['content-type']).split(';')[0] }).toEqual({ where, fits: true, type });
      }
    }
    expect(operations).toBeGreaterThanOrEqual(16);
    expect(asked).toEqual(expect.arrayContaining(['pause', 'resume', 'retry public.orders', 'switchover {}']));
  });

  it('would notice an answer that is not as described', async () => {
    const { app } = await build();
    const document = (await app.inject({ url: '/api/docs/json', headers })).json() as Document;
    const { schema } = document.paths['/api/v1/status']!['get']!.responses['200']!.content!['application/json']!;
    const status = (await app.inject({ url: '/api/v1/status', headers })).json() as { job: Record<string, unknown> };
    expect(() => z.fromJSONSchema(schema).parse({ ...status, job: { ...status.job, phase: 'dreaming' } })).toThrow(/phase/);
  });

  it('filters, sorts and pages tables', async () => {
    const { app } = await build();
    const get = async (query: string) => (await app.inject({ url: `/api/v1/tables?${query}`, headers })).json() as { total: number; tables: { name: string; bytes: number }[] };
    expect((await get('state=paused')).tables.map((t) => t.name)).toEqual(['orders']);
    expect((await get('search=PRI')).tables.map((t) => t.name)).toEqual(['prices']);
    const largest = await get('sort=bytes&order=desc&limit=3');
    expect(largest.total).toBe(12);
    expect(largest.tables.map((t) => t.bytes)).toEqual(largest.tables.map((t) => t.bytes).sort((a, b) => b - a));
    expect(largest.tables[0]!.name).toBe('orders');
    expect((await get('sort=bytes&order=desc&limit=3&offset=11')).tables).toHaveLength(1);
  });

  it('filters logs by level, text and number', async () => {
    const { app, job } = await build();
    const before = job.status.read().log.length;
    job.send({ type: 'log', level: 'debug', message: 'one' }, { type: 'log', level: 'warn', message: 'two' }, { type: 'log', level: 'error', message: 'three' });
    const get = async (query: string) => ((await app.inject({ url: `/api/v1/logs?${query}`, headers })).json() as { lines: { message: string }[] }).lines.map((l) => l.message);
    expect(await get(`after=${before}`)).toEqual(['one', 'two', 'three']);
    expect(await get(`level=warn&after=${before}`)).toEqual(['two', 'three']);
    expect(await get('search=THRE')).toEqual(['three']);
    expect(await get(`after=${before + 2}`)).toEqual(['three']);
    // What happened to the job stands there as well.
    expect(await get('limit=500')).toEqual(expect.arrayContaining(['copying', 'streaming', expect.stringMatching(/^public\.orders paused at .*duplicate key/)]));
  });

  it('says what the changes are, from a number on', async () => {
    const { app, job } = await build();
    const first = (await app.inject({ url: '/api/v1/changes', headers })).json() as { type: string; feed: string; seq: number; tables: unknown[] };
    expect(first).toMatchObject({ type: 'snapshot' });
    expect(first.tables).toHaveLength(12);
    expect((await app.inject({ url: `/api/v1/changes?feed=${first.feed}&since=${first.seq}`, headers })).statusCode).toBe(204);
    job.send({ type: 'table-changes', table: { schema: 'public', name: 'events' }, inserts: 5, updates: 0, deletes: 0 });
    const delta = (await app.inject({ url: `/api/v1/changes?feed=${first.feed}&since=${first.seq}`, headers })).json();
    expect(delta).toMatchObject({ type: 'delta', tables: [{ name: 'events', inserts: 5 }] });
    expect((await app.inject({ url: `/api/v1/changes?feed=another&since=${first.seq}`, headers })).json()).toMatchObject({ type: 'snapshot' });
  });
});

describe('actions', () => {
  it('hands them on, with their options', async () => {
    const { app } = await build();
    expect((await app.inject({ method: 'POST', url: '/api/v1/tables/public/orders/skip-transaction', headers })).json()).toEqual({ accepted: true });
    const started = await app.inject({ method: 'POST', url: '/api/v1/switchover', headers, payload: { timeoutMs: 5000, reverse: true } });
    expect(started.statusCode).toBe(202);
    expect(asked).toEqual(['skip-transaction public.orders', 'switchover {"timeoutMs":5000,"reverse":true}']);
  });

  it('refuses a table that is not there, an unknown action, and anything where no job runs', async () => {
    const { app } = await build();
    expect(error(await app.inject({ method: 'POST', url: '/api/v1/tables/public/nope/retry', headers })).code).toBe('no-such-table');
    expect((await app.inject({ method: 'POST', url: '/api/v1/tables/public/orders/drop', headers })).statusCode).toBe(400);
    const { app: watching } = await build({ actions: null });
    const refused = await watching.inject({ method: 'POST', url: '/api/v1/pause', headers });
    expect(refused.statusCode).toBe(503);
    expect(error(refused)).toMatchObject({ code: 'no-running-job', hint: expect.stringContaining('--api-port') as string });
  });

  it('tells a refusal of the job with its hint', async () => {
    const { app } = await build({ actions: fakeActions({ pause: () => Promise.reject(new PgweaveError('cannot-pause', 'not now', { hint: 'Later.' })) }) });
    const refused = await app.inject({ method: 'POST', url: '/api/v1/pause', headers });
    expect(refused.statusCode).toBe(409);
    expect(error(refused)).toEqual({ code: 'cannot-pause', message: 'not now', hint: 'Later.' });
  });

  it('runs one switchover at a time, stops it on request, and shows how it ended', async () => {
    const requests: SwitchoverRequest[] = [];
    const switchover: JobActions['switchover'] = (request, signal) => {
      requests.push(request);
      return new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason as Error));
      });
    };
    const { app } = await build({ actions: fakeActions({ switchover }) });
    const post = (url: string) => app.inject({ method: 'POST', url, headers });
    expect(error(await post('/api/v1/switchover/stop')).code).toBe('no-switchover');
    expect((await post('/api/v1/switchover')).statusCode).toBe(202);
    expect(error(await post('/api/v1/switchover')).code).toBe('switchover-running');
    expect((await post('/api/v1/switchover/stop')).statusCode).toBe(202);
    await vi.waitFor(async () => {
      const status = (await app.inject({ url: '/api/v1/status', headers })).json() as { server: { switchover: { status: string; error: { code: string } } } };
      expect(status.server.switchover).toMatchObject({ status: 'stopped', error: { code: 'switchover-stopped' } });
    }, { timeout: 15_000 });
    expect(requests).toHaveLength(1);
  });
});

describe('monitoring', () => {
  it('measures in base units, and leaves out what is not measured', async () => {
    const { app, job } = await build();
    job.send({ type: 'counter', name: 'retries', by: 3 });
    job.send({ type: 'topology', topology: { kind: 'fan-out', nodes: [], edges: [{ from: 'a', to: 'b', state: 'behind', lagMs: 1500 }] } });
    const text = (await app.inject({ url: '/metrics', headers })).body;
    expect(text).toContain('pgweave_lag_seconds{job="default"} 0.012\n');
    expect(text).toContain('pgweave_lag_bytes{job="default"} 0\n');
    expect(text).toContain('pgweave_tables{job="default",state="streaming"} 11\n');
    expect(text).toContain('pgweave_tables{job="default",state="paused"} 1\n');
    expect(text).toContain('pgweave_phase{job="default",phase="streaming"} 1\n');
    expect(text).toContain('pgweave_phase{job="default",phase="copying"} 0\n');
    expect(text).toContain('pgweave_retries_total{job="default"} 3\n');
    expect(text).toContain('pgweave_slot_safe_bytes{job="default"} 65498251264\n');
    expect(text).toContain('pgweave_link_lag_seconds{job="default",from="a",to="b"} 1.5\n');
    expect(text).not.toContain('pgweave_spool_bytes{');
    // A second scrape says the same: nothing is added up twice.
    expect((await app.inject({ url: '/metrics', headers })).body).toContain('pgweave_retries_total{job="default"} 3\n');
  });

  it('follows Prometheus\' conventions: help and type for each, _total for counters alone', async () => {
    const { app } = await build();
    const text = (await app.inject({ url: '/metrics', headers })).body;
    for (const [, name, type] of text.matchAll(/^# TYPE (\S+) (\S+)$/gm)) {
      expect(name).toMatch(/^pgweave_[a-z0-9_]+$/);
      // prom-client's own, of the process.
      if (/^pgweave_(process|nodejs)_/.test(name!)) continue;
      expect({ name, total: name!.endsWith('_total') }).toEqual({ name, total: type === 'counter' });
      expect(text).toContain(`# HELP ${name} `);
    }
  });

  it('is alive at once, ready once the job runs, and not after it failed', async () => {
    const { app, job } = await build();
    expect((await app.inject({ url: '/health', headers })).json()).toEqual({ status: 'ok' });
    expect((await app.inject({ url: '/ready', headers })).statusCode).toBe(200);
    job.send({ type: 'phase', phase: 'failed' });
    expect((await app.inject({ url: '/ready', headers })).statusCode).toBe(503);
  });
});

describe('who may ask', () => {
  const remote = { host: '0.0.0.0', token };
  const outside = { host: '10.1.2.3:7654' };

  it('listens on a foreign address with a token only, and a long one', async () => {
    const job = sampleJob();
    const control = ownJob(() => job.status.read(), {}, null);
    await expect(buildServer({ control, port: 0, host: '0.0.0.0' })).rejects.toMatchObject({ code: 'usage', exitCode: 2 });
    await expect(buildServer({ control, port: 0, host: '0.0.0.0', token: '' })).rejects.toMatchObject({ code: 'usage' });
    await expect(buildServer({ control, port: 0, host: '::', token: 'short' })).rejects.toMatchObject({ code: 'usage' });
  });

  it('refuses every route without the token, but the page itself and the probes', async () => {
    const { app } = await build(remote);
    const document = (await app.inject({ url: '/api/docs/json', headers: { ...outside, authorization: `Bearer ${token}` } })).json() as Document;
    const urls = Object.entries(document.paths).flatMap(([path, methods]) => Object.keys(methods).map((method) => ({ path, method: method.toUpperCase() as 'GET' | 'POST' })));
    urls.push({ path: '/api/v1/ws', method: 'GET' }, { path: '/api/docs', method: 'GET' }, { path: '/api/docs/json', method: 'GET' }, { path: '/api/docs/static/swagger-ui.css', method: 'GET' });
    const open = ['/health', '/ready'];
    expect(urls.length).toBeGreaterThan(18);
    for (const { path, method } of urls) {
      const url = path.replaceAll(/\{\w+\}/g, 'public');
      for (const authorization of [undefined, 'Bearer wrong-token-of-some-length', 'Basic dXNlcjpwYXNz', `Bearer ${token} `, `Bearer ${token.toUpperCase()}`]) {
        const response = await app.inject({ method, url, headers: { ...outside, ...(authorization === undefined ? {} : { authorization }) } });
        expect({ method, url, authorization, status: response.statusCode }).toEqual({ method, url, authorization, status: open.includes(path) ? 200 : 401 });
      }
    }
    expect(asked).toEqual([]);
    expect((await app.inject({ url: '/api/v1/status', headers: { ...outside, authorization: `Bearer ${token}` } })).statusCode).toBe(200);
  });

  it('refuses foreign Hosts and Origins everywhere', async () => {
    const { app } = await build({ allowedHosts: ['dash.example'] });
    const status = async (more: Record<string, string>, method: 'GET' | 'POST' = 'GET', url = '/api/v1/status') => (await app.inject({ method, url, headers: { ...headers, ...more } })).statusCode;
    for (const host of ['evil.example', 'evil.example:7654', '127.0.0.1.evil.example', '192.0.2.7', 'localhost@evil.example', 'localhost, evil.example']) expect({ host, status: await status({ host }) }).toEqual({ host, status: 403 });
    for (const host of ['localhost', 'localhost:9000', '[::1]:7654', 'LOCALHOST:1', 'dash.example']) expect({ host, status: await status({ host }) }).toEqual({ host, status: 200 });
    for (const origin of ['https://evil.example', 'null', 'http://127.0.0.1:1', 'http://127.0.0.1', 'http://localhost:7654', 'file://']) {
      const got = [await status({ origin }), await status({ origin }, 'POST', '/api/v1/pause'), await status({ origin }, 'GET', '/metrics')];
      expect({ origin, got }).toEqual({ origin, got: [403, 403, 403] });
    }
    expect(await status({ origin: 'http://127.0.0.1:7654' })).toBe(200);
    expect(await status({ host: 'dash.example', origin: 'https://dash.example' })).toBe(200);
    expect(asked).toEqual([]);
  });

  it('gives no cross-origin permission, and says what a browser may do with an answer', async () => {
    const { app } = await build();
    const preflight = await app.inject({ method: 'OPTIONS', url: '/api/v1/pause', headers: { ...headers, origin: 'https://evil.example', 'access-control-request-method': 'POST' } });
    expect(preflight.statusCode).toBe(403);
    const response = await app.inject({ url: '/api/v1/status', headers });
    expect(Object.keys(response.headers).filter((name) => name.startsWith('access-control'))).toEqual([]);
    expect(response.headers).toMatchObject({ 'cache-control': 'no-store', 'x-content-type-options': 'nosniff', 'x-frame-options': 'DENY', 'content-security-policy': expect.stringContaining("default-src 'none'") as string });
  });

  it('refuses bodies that are too large or broken', async () => {
    const { app } = await build();
    const post = (payload: string, type = 'application/json') => app.inject({ method: 'POST', url: '/api/v1/switchover', headers: { ...headers, 'content-type': type }, payload });
    expect((await post(JSON.stringify({ timeoutMs: 1, pad: 'x'.repeat(20_000) }))).statusCode).toBe(413);
    for (const body of ['{', '[]', '"x"', '{"timeoutMs":"soon"}', '{"lock":"everything"}', '{"unknown":1}', '{"timeoutMs":-1}', '{"__proto__":{"verify":true}}']) expect({ body, status: (await post(body)).statusCode }).toEqual({ body, status: 400 });
    expect((await post('timeoutMs=1', 'application/x-www-form-urlencoded')).statusCode).toBe(415);
    expect((await post('{}', 'text/plain')).statusCode).toBe(400);
    expect(asked).toEqual([]);
  });

  it('holds no secret in any answer', async () => {
    const secret = 'p4ssw0rd-of-the-source';
    rememberSecret(secret);
    const { app, job } = await build({ token });
    job.send({ type: 'log', level: 'error', message: `password=${secret}` }, { type: 'warning', code: 'w', message: secret }, { type: 'phase', phase: 'failed', detail: secret });
    job.status.fail({ code: 'x', message: `postgres://u:${secret}@h/d`, hint: secret });
    const document = (await app.inject({ url: '/api/docs/json', headers: { ...headers, authorization: `Bearer ${token}` } })).json() as Document;
    for (const path of [...Object.keys(document.paths), '/api/docs/json']) {
      if (path.includes('{')) continue;
      for (const authorization of [`Bearer ${token}`, `Bearer ${token}x`]) {
        const { body } = await app.inject({ url: path, headers: { ...headers, authorization } });
        expect(body).not.toContain(secret);
        expect(body).not.toContain(token);
      }
    }
  });
});

describe('a real socket', () => {
  it('says where it listens, refuses a port that is taken, and takes no half request for ever', async () => {
    const job = sampleJob();
    const control = ownJob(() => job.status.read(), {}, null);
    await using server = await startServer({ control, port: 0 });
    expect(server.url).toBe(`http://127.0.0.1:${server.port}`);
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
    await expect(startServer({ control, port: server.port })).rejects.toMatchObject({ code: 'api-port-in-use', hint: expect.stringContaining('--api-port') as string });
    await expect(startServer({ control, port: 0, host: '203.0.113.9', token })).rejects.toMatchObject({ code: 'api-address' });
    const answer = await new Promise<string>((resolve, reject) => {
      const socket = connect(server.port, '127.0.0.1', () => socket.write('GET / HTTP/1.1\r\nthis is no header\r\n\r\n'));
      let text = '';
      socket.on('data', (chunk) => void (text += chunk.toString()));
      socket.on('close', () => resolve(text));
      socket.on('error', reject);
    });
    expect(answer).toMatch(/^HTTP\/1\.1 400/);
  });
});
