import { z } from 'zod';
import { historyRanges, historySeries } from './history.ts';

/** The shapes of the API, for validation and for the OpenAPI document. Sizes are bytes, durations milliseconds, times ISO 8601 in UTC. */

const count = z.number();
const instant = z.iso.datetime();
const orNull = <T extends z.ZodType>(type: T) => type.nullable();

export const phaseSchema = z.enum(['preparing', 'schema', 'copying', 'indexes', 'finishing', 'catching-up', 'streaming', 'paused', 'switching-over', 'switched-over', 'done', 'stopped', 'failed']);

const serverSchema = z.object({ host: z.string(), port: z.number(), database: z.string(), version: z.string(), provider: z.string() });

const tableStateSchema = z.discriminatedUnion('name', [
  z.object({ name: z.literal('pending') }),
  z.object({ name: z.literal('copying') }),
  z.object({ name: z.literal('copied'), lsn: orNull(z.string()) }),
  z.object({ name: z.literal('streaming') }),
  z.object({ name: z.literal('paused'), reason: z.string(), lsn: orNull(z.string()) }),
]);

export const tableSchema = z.object({
  schema: z.string(), name: z.string(), state: tableStateSchema, stateSince: instant, bytes: count, bytesDone: count, rows: count, rowsDone: count, parts: count, partsDone: count,
  partsRunning: count, rowsPerSecond: orNull(count), indexes: count, indexesDone: count, building: z.array(z.object({ index: z.string(), phase: z.string(), percent: orNull(count) })),
  inserts: count, updates: count, deletes: count,
});

const logLineSchema = z.object({ n: z.number(), at: instant, level: z.enum(['debug', 'info', 'warn', 'error']), message: z.string() });

const errorBody = z.object({ code: z.string(), message: z.string(), hint: orNull(z.string()) });
export const errorSchema = z.object({ error: errorBody }).describe('Why the request was refused, and what to do.');

const topologySchema = z.object({
  kind: z.enum(['fan-out', 'mesh']),
  nodes: z.array(
    z.object({
      name: z.string(), role: z.enum(['source', 'target', 'node']), host: z.string().nullish(), version: z.string().nullish(), reachable: orNull(z.boolean()), problem: z.string().nullish(),
      writesPerSecond: count.nullish(), conflicts: count.nullish(), parkedRows: count.nullish(), clockOffsetMs: count.nullish(), retainedBytes: count.nullish(), slotsUsed: count.nullish(),
      slotsMax: count.nullish(),
    }),
  ).readonly(),
  edges: z.array(
    z.object({
      from: z.string(), to: z.string(), state: z.enum(['on-time', 'behind', 'copying', 'paused', 'not-connected']), lagMs: count.nullish(), lagBytes: count.nullish(), rowsPerSecond: count.nullish(),
      detail: z.string().nullish(), since: z.string().nullish(),
    }),
  ).readonly(),
});

export const jobStateSchema = z.object({
  mode: z.enum(['job', 'folder', 'remote']), running: z.boolean(), note: orNull(z.string()), version: z.string(), canAct: z.boolean(),
  switchover: z.object({ status: z.enum(['idle', 'running', 'done', 'failed', 'stopped']), error: orNull(errorBody) }),
});

export const summarySchema = z.object({
  format: z.literal(1), job: z.string(), command: z.string(), pid: z.number(), writtenAt: instant, startedAt: instant, phase: phaseSchema, phaseSince: instant, phaseDetail: orNull(z.string()),
  phases: z.array(z.object({ phase: phaseSchema, since: instant })), source: orNull(serverSchema), target: orNull(serverSchema), schemaObjects: z.object({ done: count, total: count }),
  totals: z.object({
    tables: count, tablesCopied: count, tablesStreaming: count, tablesPaused: count, bytes: count, bytesDone: count, rowsDone: count, indexes: count, indexesDone: count,
  }),
  rates: z.object({ copyBytesPerSecond: orNull(count), copyRowsPerSecond: orNull(count), appliedRowsPerSecond: orNull(count), appliedTransactionsPerSecond: orNull(count) }),
  estimateMs: orNull(count),
  stream: orNull(
    z.object({
      receivedLsn: z.string(), appliedLsn: z.string(), sourceLsn: z.string(), lagBytes: count, lagMs: orNull(count), transactions: count, rows: count, spoolBytes: count.optional(),
    }),
  ),
  slot: orNull(z.object({ slot: z.string(), walStatus: z.string(), retainedBytes: count, safeBytes: orNull(count) })),
  steps: z.array(z.object({ name: z.string(), status: z.enum(['running', 'ok', 'warn', 'failed', 'undone', 'skipped']), detail: z.string(), elapsedMs: count })),
  counters: z.object({ batches: count, conflicts: count, retries: count, reconnects: count }),
  warnings: z.array(z.object({ at: instant, code: z.string(), message: z.string(), hint: orNull(z.string()) })),
  error: orNull(errorBody),
  writesRefused: z.object({ since: instant, until: orNull(instant) }).optional(),
  verified: z.object({ at: instant, tables: count, rows: count, differing: count, lsn: orNull(z.string()) }).optional(),
  wayBack: z.object({ open: z.boolean(), slot: z.string(), since: instant }).optional(),
  api: z.string().optional(), topology: topologySchema.optional(),
});

export const statusSchema = z.object({ server: jobStateSchema, job: summarySchema });

export const tablesQuerySchema = z.object({
  state: z.enum(['pending', 'copying', 'copied', 'streaming', 'paused']).optional(),
  search: z.string().max(200).optional().describe('Part of `schema.name`, upper and lower case alike.'),
  sort: z.enum(['name', 'state', 'bytes', 'progress', 'rows', 'changes']).default('name'),
  order: z.enum(['asc', 'desc']).default('asc'),
  limit: z.coerce.number().int().min(1).max(10_000).default(1000),
  offset: z.coerce.number().int().min(0).default(0),
});
export const tablesSchema = z.object({ total: z.number().describe('Tables that match, of which `tables` holds one page.'), tables: z.array(tableSchema) });

export const tableParamsSchema = z.object({ schema: z.string().min(1).max(256), name: z.string().min(1).max(256) });
export const tableActionParamsSchema = tableParamsSchema.extend({ action: z.enum(['retry', 'skip-transaction', 'copy-again']) });

export const logsQuerySchema = z.object({
  level: z.enum(['debug', 'info', 'warn', 'error']).default('debug').describe('The least level.'),
  search: z.string().max(200).optional(),
  after: z.coerce.number().int().min(0).default(0).describe('Only lines with a higher `n`.'),
  limit: z.coerce.number().int().min(1).max(500).default(500),
});
export const logsSchema = z.object({ lines: z.array(logLineSchema) });

export const configSchema = z.object({ config: z.record(z.string(), z.unknown()) });

export const historyQuerySchema = z.object({ range: z.enum(historyRanges).default('15m') });
const seriesSchema = z.object(Object.fromEntries(historySeries.map((name) => [name, z.array(orNull(count))])) as Record<(typeof historySeries)[number], z.ZodArray<z.ZodNullable<z.ZodNumber>>>);
export const historySchema = z.object({
  range: z.enum(historyRanges), stepSeconds: z.number(), at: z.array(z.number()).describe('Seconds since 1970.'), series: seriesSchema, events: z.array(z.object({ at: z.number(), text: z.string() })),
});

export const changesQuerySchema = z.object({
  feed: z.string().max(64).optional().describe('The feed that `since` counts in; another one, or none, gives everything.'),
  since: z.coerce.number().int().min(0).default(0),
});
export const feedMessageSchema = z.object({
  type: z.enum(['snapshot', 'delta']), feed: z.string(), seq: z.number(), since: z.number(), writtenAt: instant, state: jobStateSchema.optional(), summary: z.record(z.string(), z.unknown()),
  tables: z.array(tableSchema), log: z.array(logLineSchema),
}).describe('What changed since a number. The WebSocket sends the same.');

export const switchoverBodySchema = z.strictObject({
  timeoutMs: z.number().int().min(1).max(3_600_000).optional().describe('Writes are given back when it took longer.'),
  lock: z.enum(['database', 'tables', 'none']).optional(),
  sequenceBuffer: z.number().int().min(0).max(1_000_000_000).optional(),
  verify: z.boolean().optional(), reverse: z.boolean().optional(), back: z.boolean().optional(),
}).nullish();

export const checksSchema = z.object({
  checks: orNull(z.array(z.object({ name: z.string(), status: z.enum(['ok', 'warn', 'failed']), detail: z.string(), fix: z.string().optional() }))).describe('Null where this job has no checks to run.'),
});

export const acceptedSchema = z.object({ accepted: z.literal(true) });
export const healthSchema = z.object({ status: z.literal('ok') });
export const readySchema = z.object({ ready: z.boolean() });
export const nothingSchema = z.null().describe('Nothing changed.');
export const metricsSchema = z.string().describe('Prometheus text format.');
