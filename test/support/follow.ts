import { quoteIdent } from '../../src/pg/identifiers.ts';
import { Session } from '../../src/pg/session.ts';
import { ReplicationSession } from '../../src/pg/replication-session.ts';
import { formatLsn, parseLsn, type Lsn } from '../../src/pg/lsn.ts';
import { ensureChangesSchema } from '../../src/changes/target-schema.ts';
import { planTables, recordTableEvent } from '../../src/changes/table-states.ts';
import { Follower, type FollowOptions, type FollowResult } from '../../src/workflows/follow.ts';
import type { JobEvent } from '../../src/core/events.ts';
import type { TableRef } from '../../src/core/tables.ts';
import { createDatabase, waitFor, type Cluster, type SharedServer, type TestDatabase } from './servers.ts';

/** Two databases with a slot between them, and followers on them. */
export interface Pair extends AsyncDisposable {
  readonly source: TestDatabase;
  readonly target: TestDatabase;
  readonly job: string;
  readonly slot: string;
  readonly startLsn: Lsn;
  /** Starts a follower; stopped with the pair. */
  follow(options?: Partial<FollowOptions>): Promise<Running>;
  /** Waits until the target has everything that the source has now. */
  caughtUp(running: Running): Promise<void>;
  /** Runs SQL on the source and waits until the target has it. */
  write(running: Running, sql: string): Promise<void>;
  /** Rows of a table on both sides, as text, sorted. */
  rows(table: string): Promise<{ source: string[]; target: string[] }>;
}

export interface Running {
  readonly follower: Follower;
  readonly events: JobEvent[];
  readonly done: Promise<FollowResult>;
  stop(): Promise<FollowResult>;
}

let jobs = 0;

/**
 * Makes both databases with the same schema, a publication of all tables, a slot, and the table states of a finished copy (the tables are empty, or the target was
 * filled by `schema`).
 */
export async function makePair(from: SharedServer | Cluster, to: SharedServer | Cluster, schema: string, options: { readonly targetSchema?: string; readonly publication?: string; readonly tables?: readonly TableRef[] } = {}): Promise<Pair> {
  jobs += 1;
  const job = `t${process.pid}_${jobs}`;
  const slot = `pgweave_${job}`;
  const source = await createDatabase(from, 'src');
  const target = await createDatabase(to, 'dst');
  await source.run(schema);
  await target.run(options.targetSchema ?? schema);
  await source.run(`create publication ${quoteIdent(slot)} ${options.publication ?? 'for all tables'}`);
  const startLsn = await createSlot(source, slot);
  await using session = await Session.open(target.spec, { role: 'test' });
  await ensureChangesSchema(session);
  const tables = options.tables ?? (await source.query<{ schema: string; name: string }>(`select n.nspname as schema, c.relname as name from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relkind in ('r', 'p') and not c.relispartition and n.nspname !~ '^(pg_|information_schema)'`));
  await planTables(session, job, tables);
  for (const table of tables) await recordTableEvent(session, job, table, { type: 'copied', lsn: startLsn });
  const running: Running[] = [];
  const pair: Pair = {
    source, target, job, slot, startLsn,
    async follow(followOptions = {}) {
      const events: JobEvent[] = [];
      const { onEvent, ...rest } = followOptions;
      const follower = await Follower.open({ source: source.spec, target: target.spec, job, ...rest, onEvent: (event) => { events.push(event); onEvent?.(event); } });
      let closed: Promise<FollowResult> | undefined;
      const done = follower.run();
      done.catch(() => undefined);
      const one: Running = {
        follower, events, done,
        stop: () => (closed ??= (async () => {
          follower.stop();
          try {
            return await done;
          } finally {
            await follower[Symbol.asyncDispose]();
          }
        })()),
      };
      running.push(one);
      return one;
    },
    async caughtUp(one) {
      const [row] = await source.query<{ lsn: string }>('select pg_current_wal_insert_lsn()::text as lsn');
      await upTo(one, parseLsn(row!.lsn));
    },
    async write(one, sql) {
      await source.run(sql);
      await pair.caughtUp(one);
    },
    async rows(table) {
      const sql = `select t::text as row from ${table} t order by 1`;
      const [a, b] = await Promise.all([source.query<{ row: string }>(sql), target.query<{ row: string }>(sql)]);
      return { source: a.map((r) => r.row), target: b.map((r) => r.row) };
    },
    async [Symbol.asyncDispose]() {
      for (const one of running) await one.stop().catch(() => undefined);
      await source.drop();
      await dropOrigins(target, job);
      await target.drop();
    },
  };
  return pair;
}

async function upTo(one: Running, lsn: Lsn): Promise<void> {
  let failure: unknown;
  one.done.catch((error: unknown) => (failure = error));
  await waitFor(`the target to reach ${formatLsn(lsn)}`, () => {
    if (failure) throw failure;
    return one.follower.appliedLsn() >= lsn;
  }, 90_000);
}

async function createSlot(database: TestDatabase, slot: string): Promise<Lsn> {
  await using replication = await ReplicationSession.open(database.spec, { role: 'test' });
  return (await replication.createLogicalSlot({ name: slot })).consistentPoint;
}

async function dropOrigins(target: TestDatabase, job: string): Promise<void> {
  await waitFor('the origins to be free', async () => {
    try {
      await target.run(`select pg_replication_origin_drop(roname) from pg_replication_origin where roname like 'pgweave_${job}%'`);
      return true;
    } catch {
      return false;
    }
  }, 20_000);
}
