import { existsSync, readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { z } from 'zod';
import { checkConfig, parseConfig, readConfig, type ConfigDocument } from '../core/config.ts';
import { usageError } from '../core/errors.ts';
import { parseDuration, parseSize } from '../core/units.ts';
import { rememberSecret } from '../core/redact.ts';
import { parseConninfo, type ConnectionSpec } from '../pg/conninfo.ts';
import { quoteConninfo } from '../pg/identifiers.ts';
import type { NatsSpec } from '../changes/nats/connection.ts';
import { logSchema, resolveLog } from './config-log.ts';

/** How a target is kept up: PostgreSQL's own subscription, or our stream that decodes the source once for all. */
export type Engine = 'native' | 'stream';

const secretText = z.string();
const server = {
  uri: secretText.optional(), uri_file: z.string().optional(), host: z.string().optional(), port: z.union([z.number().int(), z.string()]).optional(), user: z.string().optional(), password: secretText.optional(), password_file: z.string().optional(),
  database: z.string().optional(), sslmode: z.string().optional(), sslrootcert: z.string().optional(),
};
const duration = z.union([z.number(), z.string()]).transform((value, context) => read(context, () => (typeof value === 'number' ? value * 1000 : parseDuration(value))));
const size = z.union([z.number(), z.string()]).transform((value, context) => read(context, () => (typeof value === 'number' ? value : parseSize(value))));
const columnList = z.record(z.string(), z.array(z.string()).min(1));
const tableRules = {
  tables: z.array(z.string().min(1)).min(1).optional(),
  /** table → SQL predicate */
  filters: z.record(z.string(), z.string()).optional(),
  exclude_columns: columnList.optional(),
  /** table → table on the target; the stream engine only */
  renames: z.record(z.string(), z.string()).optional(),
};
const targetSettings = z.strictObject({ enable_initial_sync: z.boolean().optional(), disable_triggers_during_sync: z.boolean().optional() });

const schema = z.strictObject({
  replication: z.strictObject({
    publication_name: z.string().min(1).max(63),
    engine: z.enum(['native', 'stream']).default('native'),
    source: z.strictObject(server),
    targets: z.array(z.strictObject({
      ...server, ...tableRules, name: z.string().regex(/^[a-z0-9_]{1,30}$/, 'a target\'s name is 1 to 30 lower-case letters, digits or underscores: it names slots'),
      subscription_name: z.string().min(1).max(63).optional(), engine: z.enum(['native', 'stream']).optional(), settings: targetSettings.optional(), source_host_for_target: z.string().optional(),
    })).default([]),
    /** Between a publisher and targets on other machines. */
    log: logSchema(size, duration).optional(),
    tables: z.array(z.string().min(1)).min(1),
    filters: tableRules.filters, exclude_columns: tableRules.exclude_columns, renames: tableRules.renames,
    settings: z.strictObject({
      max_wait_attempts: z.number().int().positive().default(30), wait_interval_seconds: z.number().positive().default(2), enable_initial_sync: z.boolean().default(true), disable_triggers_during_sync: z.boolean().default(true),
      create_schema: z.boolean().default(false), adopt_existing: z.boolean().default(false), reconcile_interval: duration.prefault('30s'), max_retained_wal: size.optional(), when_wal_budget_is_spent: z.enum(['keep', 'drop-and-resync']).default('keep'),
      health_port: z.number().int().min(0).max(65_535).default(3000), health_host: z.string().default('127.0.0.1'),
    }).prefault({}),
  }),
});

type RawServer = z.output<typeof schema>['replication']['source'];

export interface TableRules {
  /** As written: `orders`, `sales.orders`, `sales.*`; a name without a schema means public. */
  readonly tables: readonly string[];
  readonly filters: Readonly<Record<string, string>>;
  readonly excludeColumns: Readonly<Record<string, readonly string[]>>;
  readonly renames: Readonly<Record<string, string>>;
}

export interface FanoutTarget extends TableRules {
  readonly name: string;
  readonly connection: ConnectionSpec;
  readonly engine: Engine;
  readonly subscription: string;
  /** Address of the source as this target reaches it, where it differs. */
  readonly sourceHost: string | undefined;
  readonly initialSync: boolean;
  readonly disableTriggersDuringSync: boolean;
}

export interface FanoutConfig {
  readonly path: string;
  readonly publication: string;
  readonly source: ConnectionSpec;
  /** What targets get that say nothing else. */
  readonly rules: TableRules;
  /** Empty only where there is a log. */
  readonly targets: readonly FanoutTarget[];
  /** Where stream targets without row filters get the changes from that a publisher writes; undefined: from the source. */
  readonly log: NatsSpec | undefined;
  readonly waitAttempts: number;
  readonly waitIntervalMs: number;
  readonly createSchema: boolean;
  /** Take over a publication or subscription of the configured name that is there already. */
  readonly adoptExisting: boolean;
  readonly reconcileIntervalMs: number;
  /** Bytes of WAL that slots may hold on the source; undefined: no budget. */
  readonly maxRetainedWal: number | undefined;
  readonly whenSpent: 'keep' | 'drop-and-resync';
  readonly healthPort: number;
  readonly healthHost: string;
}

/** Where the configuration is looked for, in this order. */
export function configurationPaths(env: NodeJS.ProcessEnv = process.env): string[] {
  const name = 'replication-config.yml';
  return [...(env['CONFIG_FILE'] ? [env['CONFIG_FILE']] : []), `/config/${name}`, `./config/${name}`, `./${name}`, `../${name}`];
}

/**
 * Reads the configuration: the file that is named, else the first that is there, else the text in REPLICATION_CONFIG (YAML or JSON). Throws a usage error with the
 * line of each fault.
 */
export function readFanoutConfig(given: string | undefined, env: NodeJS.ProcessEnv = process.env): FanoutConfig {
  const paths = given ? [given] : configurationPaths(env);
  const explicit = given ?? env['CONFIG_FILE'];
  const path = explicit ?? paths.find((p) => existsSync(p));
  if (path !== undefined) return resolveFanoutConfig(readConfig(path), env);
  const text = env['REPLICATION_CONFIG'];
  if (text) return resolveFanoutConfig(parseConfig(text, 'REPLICATION_CONFIG', 'yaml'), env);
  throw usageError('no configuration found', `Looked for: ${paths.join(', ')}, and the variable REPLICATION_CONFIG. Name one with --config or CONFIG_FILE; examples/fanout has one to start from.`);
}

/** Checks a parsed document and resolves its variables, secret files and defaults. */
export function resolveFanoutConfig(document: ConfigDocument, env: NodeJS.ProcessEnv = process.env): FanoutConfig {
  const expanded: ConfigDocument = { ...document, lineOf: (path) => document.lineOf(path), value: expand(document.value, env, document, []) };
  const { replication: r } = checkConfig(expanded, schema);
  const names = new Set<string>();
  const publication = r.publication_name;
  const base = document.path === 'REPLICATION_CONFIG' ? '.' : dirname(document.path);
  const logPath = (key: string) => ['replication', 'log', 'nats', key];
  const log = r.log && resolveLog(r.log, { path: document.path, at: (key) => place(document, logPath(key)) || place(document, ['replication', 'log', 'nats']), secret: (file, key) => secretFile(file, base, document, logPath(key)), resolve: (file) => resolve(base, file) });
  if (r.targets.length === 0 && !log) throw usageError(`${document.path}: ${place(document, ['replication', 'targets']) || place(document, ['replication'])}no targets are given`, 'Name at least one; only a publisher (log.nats) may have none.');
  const targets = r.targets.map((target, i): FanoutTarget => {
    const where = place(document, ['replication', 'targets', i, 'name']);
    if (names.has(target.name)) throw usageError(`${document.path}: ${where}two targets are called "${target.name}"`, 'Each target needs a name of its own.');
    names.add(target.name);
    const engine = target.engine ?? r.engine;
    const renames = { ...r.renames, ...target.renames };
    if (engine === 'native' && Object.keys(renames).length > 0) {
      throw usageError(`${document.path}: ${where}target "${target.name}" renames tables, which a native subscription cannot do`, 'Set engine: stream for this target, or leave renames out.');
    }
    return {
      name: target.name, connection: connectionOf(target, document, ['replication', 'targets', i], base, env), engine, subscription: target.subscription_name ?? `${publication}_${target.name}`, sourceHost: target.source_host_for_target,
      initialSync: target.settings?.enable_initial_sync ?? r.settings.enable_initial_sync, disableTriggersDuringSync: target.settings?.disable_triggers_during_sync ?? r.settings.disable_triggers_during_sync,
      tables: target.tables ?? r.tables, filters: { ...r.filters, ...target.filters }, excludeColumns: { ...r.exclude_columns, ...target.exclude_columns }, renames,
    };
  });
  const s = r.settings;
  return {
    path: document.path, publication, source: connectionOf(r.source, document, ['replication', 'source'], base, env), targets, log, rules: { tables: r.tables, filters: r.filters ?? {}, excludeColumns: r.exclude_columns ?? {}, renames: r.renames ?? {} }, waitAttempts: s.max_wait_attempts, waitIntervalMs: s.wait_interval_seconds * 1000, createSchema: s.create_schema, adoptExisting: s.adopt_existing,
    reconcileIntervalMs: s.reconcile_interval, maxRetainedWal: s.max_retained_wal, whenSpent: s.when_wal_budget_is_spent, healthPort: s.health_port, healthHost: s.health_host,
  };
}

/** The configuration with these targets alone. Throws a usage error for names that are not there, and for a stream that other processes would need too. */
export function onlyTargets(config: FanoutConfig, names: readonly string[] | undefined): FanoutConfig {
  if (names === undefined) return config;
  const unknown = names.find((name) => !config.targets.some((t) => t.name === name));
  if (unknown !== undefined) throw usageError(`${config.path} has no target "${unknown}"`, `It has: ${config.targets.map((t) => t.name).join(', ')}.`);
  const targets = config.targets.filter((t) => names.includes(t.name));
  const stream = targets.find((t) => t.engine === 'stream');
  if (stream && !config.log && targets.length < config.targets.length) throw usageError(`target "${stream.name}" shares a slot with the other stream targets of ${config.path}`, 'Keep all of them in one process; or write the changes to NATS (log.nats), where each machine may keep its own.');
  return { ...config, targets };
}

function place(document: ConfigDocument, path: readonly PropertyKey[]): string {
  const line = document.lineOf(path);
  return line === undefined ? '' : `line ${line}: `;
}

/** Replaces `${NAME}` and `${NAME:-default}` in every text. Throws where a variable without a default is not set. */
function expand(value: unknown, env: NodeJS.ProcessEnv, document: ConfigDocument, path: readonly PropertyKey[]): unknown {
  if (typeof value === 'string') {
    return value.replace(/\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}/g, (_all, name: string, fallback: string | undefined) => {
      const found = env[name] ?? fallback;
      if (found === undefined) throw usageError(`${document.path}: ${place(document, path)}the variable ${name} is not set`, `Set ${name}, or write \${${name}:-default}.`);
      return found;
    });
  }
  if (Array.isArray(value)) return value.map((item, i) => expand(item, env, document, [...path, i]));
  if (typeof value === 'object' && value !== null) return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, expand(item, env, document, [...path, key])]));
  return value;
}

function secretFile(path: string, base: string, document: ConfigDocument, at: readonly PropertyKey[]): string {
  try {
    return readFileSync(resolve(base, path), 'utf8').replace(/\r?\n$/, '');
  } catch (error) {
    throw usageError(`${document.path}: ${place(document, at)}cannot read ${path}: ${(error as NodeJS.ErrnoException).code ?? 'unknown error'}`, 'Check the path and its permissions.');
  }
}

function connectionOf(raw: RawServer, document: ConfigDocument, path: readonly PropertyKey[], base: string, env: NodeJS.ProcessEnv): ConnectionSpec {
  const uri = raw.uri ?? (raw.uri_file === undefined ? undefined : secretFile(raw.uri_file, base, document, [...path, 'uri_file']));
  const password = raw.password ?? (raw.password_file === undefined ? undefined : secretFile(raw.password_file, base, document, [...path, 'password_file']));
  rememberSecret(password);
  if (uri !== undefined && raw.host !== undefined) throw usageError(`${document.path}: ${place(document, [...path, 'uri'])}both uri and host are given`, 'Give the one or the other.');
  if (uri === undefined && raw.host === undefined) throw usageError(`${document.path}: ${place(document, path)}neither uri nor host is given`, 'Give host, port, user and database, or uri.');
  // The other fields are added as key/value pairs, so that one parser decides about everything.
  const fields = { host: raw.host, port: raw.port, user: raw.user, password, dbname: raw.database, sslmode: raw.sslmode, sslrootcert: raw.sslrootcert };
  const pairs = Object.entries(fields).filter(([, value]) => value !== undefined).map(([name, value]) => `${name}=${quoteConninfo(String(value))}`);
  try {
    const spec = parseConninfo(uri ?? pairs.join(' '), env);
    return uri !== undefined && password !== undefined && spec.passwordSource !== 'the connection string' ? { ...spec, password, passwordSource: document.path } : spec;
  } catch (error) {
    throw usageError(`${document.path}: ${place(document, path)}${(error as Error).message}`, (error as { hint?: string }).hint);
  }
}

function read(context: z.RefinementCtx, parse: () => number): number {
  try {
    return parse();
  } catch (error) {
    context.addIssue({ code: 'custom', message: (error as Error).message });
    return z.NEVER;
  }
}
