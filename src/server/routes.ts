import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import type { Registry } from 'prom-client';
import { PgweaveError } from '../core/errors.ts';
import { redactDeep } from '../core/redact.ts';
import type { JobSnapshot, JobSummary, LogLine } from '../core/snapshot.ts';
import type { TableRef } from '../core/tables.ts';
import { displayName } from '../pg/identifiers.ts';
import type { HistoryRecorder } from './history.ts';
import { noActionsError, type JobActions, type JobControl } from './job-control.ts';
import type { JobState } from './messages.ts';
import * as schemas from './schemas.ts';
import type { SnapshotFeed } from './snapshot-feed.ts';
import type { SwitchoverRun } from './switchover-run.ts';
import { selectTables } from './table-query.ts';

export interface RouteContext {
  readonly control: JobControl;
  readonly state: () => JobState;
  readonly feed: SnapshotFeed;
  readonly history: HistoryRecorder;
  readonly switchover: SwitchoverRun;
  readonly metrics: Registry;
}

const levels: readonly LogLine['level'][] = ['debug', 'info', 'warn', 'error'];
const refusals = { 400: schemas.errorSchema, 401: schemas.errorSchema, 403: schemas.errorSchema };
const actionRefusals = { ...refusals, 409: schemas.errorSchema, 503: schemas.errorSchema };

/** REST under /api/v1. */
export const apiRoutes: FastifyPluginAsyncZod<RouteContext> = async (app, { control, state, feed, history, switchover }) => {
  app.get('/status', { schema: { tags: ['job'], summary: 'The job without its tables and log', response: { 200: schemas.statusSchema, ...refusals } } }, async () => ({ server: state(), job: summaryOf(control.read()) }));

  app.get('/tables', { schema: { tags: ['tables'], summary: 'Tables: filtered, sorted, a page of them', querystring: schemas.tablesQuerySchema, response: { 200: schemas.tablesSchema, ...refusals } } }, async ({ query }) => {
    const found = selectTables(control.read().tables, query);
    return { total: found.length, tables: found.slice(query.offset, query.offset + query.limit) };
  });

  app.get('/tables/:schema/:name', { schema: { tags: ['tables'], summary: 'One table', params: schemas.tableParamsSchema, response: { 200: schemas.tableSchema, 404: schemas.errorSchema, ...refusals } } }, async ({ params }) =>
    findTable(control.read(), params));

  app.post('/tables/:schema/:name/:action', {
    schema: {
      tags: ['tables'], summary: 'Settle a paused table: try again, leave one transaction out, or copy it anew', params: schemas.tableActionParamsSchema,
      response: { 200: schemas.acceptedSchema, 404: schemas.errorSchema, ...actionRefusals },
    },
  }, async ({ params }) => {
    const { schema, name } = findTable(control.read(), params);
    await actionsOf(control).table(params.action, { schema, name });
    return { accepted: true } as const;
  });

  app.get('/logs', { schema: { tags: ['job'], summary: 'The newest log lines', querystring: schemas.logsQuerySchema, response: { 200: schemas.logsSchema, ...refusals } } }, async ({ query }) => {
    const least = levels.indexOf(query.level);
    const search = query.search?.toLowerCase() ?? '';
    const lines = control.read().log.filter((line) => line.n > query.after && levels.indexOf(line.level) >= least && (search === '' || line.message.toLowerCase().includes(search)));
    return { lines: lines.slice(-query.limit) };
  });

  app.get('/config', { schema: { tags: ['job'], summary: 'The configuration that the job runs with, without secrets', response: { 200: schemas.configSchema, ...refusals } } }, async () => ({ config: redactDeep(control.config()) as Record<string, unknown> }));

  app.get('/history', { schema: { tags: ['job'], summary: 'What was measured over time', querystring: schemas.historyQuerySchema, response: { 200: schemas.historySchema, ...refusals } } }, async ({ query }) => (control.history ? await control.history(query.range) : history.read(query.range)));

  app.get('/changes', {
    schema: { tags: ['job'], summary: 'What changed since a number: the WebSocket\'s messages for those who poll', querystring: schemas.changesQuerySchema, response: { 200: schemas.feedMessageSchema, 204: schemas.nothingSchema, ...refusals } },
    // The text is made once for all listeners; running it through a serializer again would cost more than making it.
    serializerCompiler: () => (body) => (typeof body === 'string' ? body : JSON.stringify(body)),
  }, async ({ query }, reply) => {
    feed.refresh();
    const text = feed.since(query.feed === feed.id ? query.since : 0);
    if (text === null) return reply.code(204).send(null);
    return reply.type('application/json; charset=utf-8').send(text as never);
  });

  app.post('/pause', { schema: { tags: ['actions'], summary: 'Stop copying or applying for a while; nothing is lost', response: { 200: schemas.acceptedSchema, ...actionRefusals } } }, async () => {
    await actionsOf(control).pause();
    return { accepted: true } as const;
  });

  app.post('/resume', { schema: { tags: ['actions'], summary: 'Go on after a pause', response: { 200: schemas.acceptedSchema, ...actionRefusals } } }, async () => {
    await actionsOf(control).resume();
    return { accepted: true } as const;
  });

  app.get('/switchover/checks', { schema: { tags: ['switchover'], summary: 'Look at everything a switchover needs; changes nothing', response: { 200: schemas.checksSchema, ...actionRefusals } } }, async () => {
    const actions = actionsOf(control);
    return { checks: actions.checks ? [...(await actions.checks())] : null };
  });

  app.post('/switchover', {
    schema: { tags: ['switchover'], summary: 'Begin a switchover; its steps appear in the status', body: schemas.switchoverBodySchema, response: { 202: schemas.acceptedSchema, ...actionRefusals } },
  }, async ({ body }, reply) => {
    switchover.start(actionsOf(control), body ?? {});
    return reply.code(202).send({ accepted: true } as const);
  });

  app.post('/switchover/stop', { schema: { tags: ['switchover'], summary: 'Stop a running switchover and give writes back', response: { 202: schemas.acceptedSchema, ...actionRefusals } } }, async (_request, reply) => {
    switchover.stop();
    return reply.code(202).send({ accepted: true } as const);
  });
};

/** Routes that other programs look for at the root. */
export const monitoringRoutes: FastifyPluginAsyncZod<RouteContext> = async (app, { control, metrics }) => {
  app.get('/health', { schema: { tags: ['monitoring'], summary: 'Liveness: the process answers', response: { 200: schemas.healthSchema } } }, async () => ({ status: 'ok' }) as const);

  app.get('/ready', { schema: { tags: ['monitoring'], summary: 'Readiness: a job runs, has reached both servers, and has not failed', response: { 200: schemas.readySchema, 503: schemas.readySchema } } }, async (_request, reply) => {
    const { phase, source } = control.read();
    const ready = control.state().running && source !== null && phase !== 'failed' && phase !== 'stopped';
    return reply.code(ready ? 200 : 503).send({ ready });
  });

  app.get('/metrics', { schema: { tags: ['monitoring'], summary: 'Prometheus metrics', response: { 200: schemas.metricsSchema, 401: schemas.errorSchema, 403: schemas.errorSchema }, produces: ['text/plain'] }, serializerCompiler: () => String }, async (_request, reply) =>
    reply.type(metrics.contentType).send(await metrics.metrics()));
};

function actionsOf(control: JobControl): JobActions {
  const { running } = control.state();
  if (!control.actions || !running) throw noActionsError(control.state());
  return control.actions;
}

function findTable(snapshot: JobSnapshot, ref: TableRef): JobSnapshot['tables'][number] {
  const found = snapshot.tables.find((t) => t.schema === ref.schema && t.name === ref.name);
  if (!found) throw new PgweaveError('no-such-table', `the job has no table ${displayName(ref.schema, ref.name)}`, { hint: 'GET /api/v1/tables lists them.' });
  return found;
}

function summaryOf(snapshot: JobSnapshot): JobSummary {
  const { tables: _tables, log: _log, ...summary } = snapshot;
  return summary;
}
