import fastifySwagger from '@fastify/swagger';
import fastifySwaggerUi from '@fastify/swagger-ui';
import fastifyWebsocket from '@fastify/websocket';
import Fastify, { type FastifyError, type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import { hasZodFastifySchemaValidationErrors, jsonSchemaTransform, serializerCompiler, validatorCompiler, type ZodTypeProvider } from 'fastify-type-provider-zod';
import type { AddressInfo } from 'node:net';
import { errorMessage, PgweaveError, usageError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { packageVersion } from '../core/package-version.ts';
import { rememberSecret } from '../core/redact.ts';
import { isLoopback, judgeOrigin, judgeToken, type AccessRules } from './access.ts';
import { dashboardFolder, registerDashboard } from './dashboard-files.ts';
import { feedProtocol } from './feed-protocol.ts';
import { FeedSockets, type FeedSocket } from './feed-socket.ts';
import { HistoryRecorder } from './history.ts';
import type { JobControl } from './job-control.ts';
import type { JobState } from './messages.ts';
import { jobMetrics } from './metrics.ts';
import { apiRoutes, monitoringRoutes } from './routes.ts';
import { SnapshotFeed } from './snapshot-feed.ts';
import { SwitchoverRun } from './switchover-run.ts';

export interface ServerOptions {
  readonly control: JobControl;
  /** Default 127.0.0.1. Any address that others reach needs a token. */
  readonly host?: string;
  /** 0 takes a free port. */
  readonly port: number;
  readonly token?: string | undefined;
  /** More names that the server may be reached by, such as a proxy's. */
  readonly allowedHosts?: readonly string[];
  readonly log?: Log;
  /** Folder of the built dashboard; default: the one in this package. */
  readonly dashboard?: string;
}

export interface RunningServer extends AsyncDisposable {
  /** `http://127.0.0.1:7654`. */
  readonly url: string;
  readonly port: number;
  readonly app: FastifyInstance;
  close(): Promise<void>;
}

const pushEveryMs = 500;
const recordEveryMs = 1000;
/** The largest body that any route takes is a switchover's, some 200 bytes. */
const bodyLimit = 16 * 1024;
/** Shorter ones are guessed; `openssl rand -hex 16` gives 32. */
const shortestToken = 16;

/**
 * Serves a job's REST API, WebSocket feed, metrics and dashboard.
 * @throws PgweaveError `usage` for a foreign address without a token, `api-port-in-use`, `api-address`.
 */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const host = options.host ?? '127.0.0.1';
  const app = await buildServer(options);
  try {
    await app.listen({ host, port: options.port });
  } catch (error) {
    await app.close();
    throw listenError(error as NodeJS.ErrnoException, host, options.port);
  }
  const { port } = app.server.address() as AddressInfo;
  const url = `http://${host.includes(':') ? `[${host}]` : host}:${port}`;
  const close = async () => {
    await app.close();
  };
  return { url, port, app, close, [Symbol.asyncDispose]: close };
}

/** The server without its socket, for tests that inject requests. */
export async function buildServer(options: ServerOptions): Promise<FastifyInstance> {
  const { control } = options;
  const host = options.host ?? '127.0.0.1';
  const rules: AccessRules = { host, token: checkToken(host, options.token), allowedHosts: (options.allowedHosts ?? []).map((name) => name.toLowerCase()) };
  const switchover = new SwitchoverRun();
  const state = (): JobState => {
    const known = control.state();
    return { ...known, version: packageVersion(), canAct: known.running && control.actions !== null, switchover: switchover.state };
  };
  const feed = new SnapshotFeed(() => control.read(), state);
  const sockets = new FeedSockets(feed);
  const history = new HistoryRecorder();

  const app = Fastify({ bodyLimit, forceCloseConnections: true, requestTimeout: 30_000, keepAliveTimeout: 72_000, routerOptions: { maxParamLength: 1024 } }).withTypeProvider<ZodTypeProvider>();
  app.setValidatorCompiler(validatorCompiler);
  app.setSerializerCompiler(serializerCompiler);
  app.setErrorHandler((error: FastifyError | PgweaveError, _request, reply) => answerError(error, reply, options.log));
  app.setNotFoundHandler((_request, reply) => reply.code(404).send(errorBody('not-found', 'there is nothing here', 'GET /api/docs lists the routes.')));
  app.addHook('onSend', (request, reply, _payload, done) => {
    reply.header('x-content-type-options', 'nosniff').header('referrer-policy', 'no-referrer').header('x-frame-options', 'DENY').header('cross-origin-resource-policy', 'same-origin');
    if (!reply.hasHeader('cache-control')) reply.header('cache-control', 'no-store');
    if (!reply.hasHeader('content-security-policy') && !request.url.startsWith('/api/docs')) reply.header('content-security-policy', "default-src 'none'; frame-ancestors 'none'");
    done();
  });

  await app.register(fastifyWebsocket, {
    options: {
      // Nothing is expected from clients; the smallest frames are enough for close and pong.
      maxPayload: 1024, perMessageDeflate: { threshold: 4096, concurrencyLimit: 2, clientNoContextTakeover: true, serverNoContextTakeover: true },
      handleProtocols: (protocols: Set<string>) => (protocols.has(feedProtocol) ? feedProtocol : false),
    },
    // In place of the plugin's own, which closes the sockets before anybody has heard how the job ended.
    preClose(this: FastifyInstance, done) {
      if (sockets.size > 0) feed.refresh();
      sockets.pushLast();
      sockets.closeAll();
      this.websocketServer.close();
      done();
    },
  });
  // After the WebSocket plugin's own hook, which marks an upgrade so that its socket is closed when it is refused; before every route.
  app.addHook('onRequest', (request, reply, done) => {
    if (!refuse(request, reply, rules)) done();
  });
  await app.register(fastifySwagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: 'pgweave', description: 'Status of and actions on a pgweave job. Sizes are bytes, durations milliseconds, times ISO 8601 in UTC.', version: packageVersion() },
      components: { securitySchemes: { token: { type: 'http', scheme: 'bearer' } } },
      security: rules.token === undefined ? [] : [{ token: [] }],
    },
    transform: jsonSchemaTransform,
  });
  await app.register(fastifySwaggerUi, { routePrefix: '/api/docs', staticCSP: true });
  const context = { control, state, feed, history, switchover, metrics: jobMetrics(control) };
  await app.register(apiRoutes, { prefix: '/api/v1', ...context });
  await app.register(monitoringRoutes, context);
  app.get('/api/v1/ws', { websocket: true, schema: { hide: true } }, (socket: FeedSocket) => sockets.add(socket));
  await registerDashboard(app, options.dashboard ?? dashboardFolder());

  runClocks(app, feed, sockets, history, control);
  return app;
}

/** The timers of a server; they end with it and keep no process alive. */
function runClocks(app: FastifyInstance, feed: SnapshotFeed, sockets: FeedSockets, history: HistoryRecorder, control: JobControl): void {
  const timers: NodeJS.Timeout[] = [];
  app.addHook('onReady', (done) => {
    timers.push(
      setInterval(() => {
        // Nobody listens: nothing is made. REST looks for itself.
        if (sockets.size === 0) return;
        feed.refresh();
        sockets.push();
      }, pushEveryMs),
      ...(control.history ? [] : [setInterval(() => history.record(control.read(), control.state().running, Date.now()), recordEveryMs)]),
      setInterval(() => sockets.checkLiveness(), 5000),
    );
    for (const timer of timers) timer.unref();
    done();
  });
  app.addHook('preClose', (done) => {
    for (const timer of timers) clearInterval(timer);
    done();
  });
}

function checkToken(host: string, token: string | undefined): string | undefined {
  const given = token === '' ? undefined : token;
  if (given === undefined && !isLoopback(host)) {
    throw usageError(`listening on ${host} needs a token: others could stop or switch over the job`, 'Set --api-token or PGWEAVE_API_TOKEN, for instance to the output of: openssl rand -hex 16');
  }
  if (given !== undefined && given.length < shortestToken) throw usageError(`the API token is too short: ${given.length} characters`, `Use ${shortestToken} or more, for instance the output of: openssl rand -hex 16`);
  if (given !== undefined && /[^\u0021-\u007e]/.test(given)) throw usageError('the API token holds a character that no HTTP header can carry', 'Use printable ASCII without spaces.');
  rememberSecret(given);
  return given;
}

/** Answers for requests that may not pass; returns whether it did. */
function refuse(request: FastifyRequest, reply: FastifyReply, rules: AccessRules): boolean {
  const refusal = judgeOrigin(request.headers, rules) ?? (isOpen(request) ? null : judgeToken(request.headers, rules));
  if (!refusal) return false;
  if (refusal.status === 401) reply.header('www-authenticate', 'Bearer realm="pgweave"');
  void reply.code(refusal.status).send(errorBody(refusal.code, refusal.message, refusal.hint));
  return true;
}

/** What holds no facts of the job needs no token: the page that asks for it, and the probes' yes or no. */
function isOpen(request: FastifyRequest): boolean {
  const url = request.routeOptions.url;
  return url === '/health' || url === '/ready' || request.routeOptions.config.open === true;
}

function answerError(error: FastifyError | PgweaveError, reply: FastifyReply, log: Log | undefined): FastifyReply {
  if (error instanceof PgweaveError) return reply.code(statusOf(error)).send(errorBody(error.code, error.message, error.hint ?? null));
  if (hasZodFastifySchemaValidationErrors(error)) {
    const where = error.validation.map((v) => `${v.instancePath.replace(/^\//, '').replaceAll('/', '.')} ${v.message ?? ''}`.trim()).join('; ');
    return reply.code(400).send(errorBody('bad-request', `the request does not have the right shape: ${where}`, 'GET /api/docs shows it.'));
  }
  const status = error.statusCode ?? 500;
  if (status < 500) return reply.code(status).send(errorBody('bad-request', errorMessage(error), null));
  log?.error({ err: error }, 'the API failed to answer');
  return reply.code(500).send(errorBody('unexpected', 'the server failed to answer; its log says why', null));
}

function statusOf(error: PgweaveError): number {
  if (error.code === 'no-such-table') return 404;
  if (error.code === 'no-running-job') return 503;
  return error.code === 'usage' ? 400 : 409;
}

function errorBody(code: string, message: string, hint: string | null): { error: { code: string; message: string; hint: string | null } } {
  return { error: { code, message, hint } };
}

function listenError(error: NodeJS.ErrnoException, host: string, port: number): PgweaveError {
  if (error.code === 'EADDRINUSE') return new PgweaveError('api-port-in-use', `port ${port} of ${host} is taken`, { hint: 'Choose another with --api-port, or 0 for any free one.', cause: error, exitCode: 2 });
  return new PgweaveError('api-address', `cannot listen on ${host}:${port}: ${error.message}`, { hint: 'Choose an address of this machine with --api-host and a port with --api-port.', cause: error, exitCode: 2 });
}
