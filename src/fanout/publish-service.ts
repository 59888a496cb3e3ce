import { setMaxListeners } from 'node:events';
import { systemIdentifier } from '../catalog/server-identity.ts';
import { ChangePublisher } from '../changes/nats/publisher.ts';
import { Backoff, sleep } from '../core/abort.ts';
import { errorMessage, isInterrupted, PgweaveError, usageError } from '../core/errors.ts';
import { jobObjectName } from '../core/job-folder.ts';
import type { Log } from '../core/log.ts';
import { formatBytes } from '../core/units.ts';
import { describeConnection } from '../pg/conninfo.ts';
import { lsnDistance, parseLsn } from '../pg/lsn.ts';
import { Session } from '../pg/session.ts';
import { ensurePublications } from '../workflows/publications.ts';
import { readSlot } from '../workflows/sync/start-point.ts';
import type { FanoutConfig } from './config.ts';
import type { FanoutHealth, LogHealth } from './health.ts';
import { dropSlotNow } from './native-target.ts';
import { natsJobOf } from './nats-target.ts';
import { judgeBudget, readSlotLags, type BudgetVerdict } from './source-watch.ts';
import { unionOfTables } from './tables.ts';

const watchEveryMs = 1000;

/**
 * The publisher: keeps publication and slot as the file says, and writes what the slot gives to the log on NATS. It needs no target; these read the log wherever they
 * are. Rounds like those of a target: what fails is tried again, with growing pauses, for as long as it takes.
 */
export class PublishService implements AsyncDisposable {
  readonly #log: Log;
  readonly #stop = new AbortController();
  readonly #startedAt = new Date().toISOString();
  #config: FanoutConfig;
  #loadedAt = new Date().toISOString();
  #configError: string | null = null;
  #sourceError: string | null = 'not asked yet';
  #error: LogHealth['lastError'] = null;
  #retained: number | null = null;
  #verdict: BudgetVerdict = 'within';
  #publisher: ChangePublisher | undefined;
  #wake = new AbortController();
  #running: Promise<unknown> = Promise.resolve();

  /** Throws a usage error where the configuration has no log. */
  constructor(config: FanoutConfig, log: Log) {
    natsOf(config);
    this.#config = config;
    this.#log = log;
    setMaxListeners(0, this.#stop.signal);
  }

  start(): void {
    const nats = natsOf(this.#config);
    this.#log.info(`publishing ${describeConnection(this.#config.source)} to the stream ${nats.stream} at ${nats.servers.join(', ')}, configuration ${this.#config.path}`);
    this.#running = Promise.all([this.#loop(), this.#watch()]);
  }

  /** Takes a new configuration; the next round, at once, brings publication and stream to it. */
  replace(config: FanoutConfig): Promise<void> {
    if (JSON.stringify([config.log, config.publication]) !== JSON.stringify([this.#config.log, this.#config.publication])) {
      this.refuse(usageError('log or publication_name was changed', 'Start the publisher anew for that.'));
      return Promise.resolve();
    }
    this.#config = config;
    this.#loadedAt = new Date().toISOString();
    this.#configError = null;
    this.#log.info(`configuration ${config.path} read again`);
    this.#wake.abort();
    return Promise.resolve();
  }

  /** The file cannot be used: the last good configuration stays. */
  refuse(error: unknown): void {
    this.#configError = errorMessage(error);
    this.#log.error(`the new configuration is not used: ${this.#configError}; the last good one stays`);
  }

  health(): FanoutHealth {
    const reachable = this.#sourceError === null;
    const nats = natsOf(this.#config);
    const position = this.#publisher?.failure === undefined ? this.#publisher?.position() : undefined;
    const publishing = position?.sourceConnected === true && position.natsConnected;
    const log: LogHealth = {
      stream: nats.stream, servers: nats.servers, publishing, natsConnected: position?.natsConnected ?? false, lagBytes: position ? lsnDistance(position.publishedLsn, position.sourceLsn) : null, waitingBytes: position?.waitingBytes ?? null, lastError: this.#error,
    };
    return {
      status: reachable && publishing && this.#configError === null && this.#error === null ? 'healthy' : 'unhealthy', ready: reachable && publishing, startedAt: this.#startedAt, config: { path: this.#config.path, loadedAt: this.#loadedAt, error: this.#configError },
      source: { address: describeConnection(this.#config.source), reachable, error: this.#sourceError, retainedBytes: this.#retained, budgetBytes: this.#config.maxRetainedWal ?? null }, targets: [], log,
    };
  }

  /** What is received in whole is stored and acknowledged, where NATS answers; nothing is dropped. */
  async stop(): Promise<void> {
    this.#stop.abort();
    this.#wake.abort();
    await this.#running;
    await this.#publisher?.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #loop(): Promise<void> {
    const { signal } = this.#stop;
    const backoff = new Backoff({ firstMs: this.#config.waitIntervalMs, maxMs: Math.max(this.#config.waitIntervalMs, 60_000), factor: 1.5 });
    for (let attempts = 0; !signal.aborted; ) {
      this.#wake = new AbortController();
      let pauseMs = this.#config.reconcileIntervalMs;
      try {
        await this.#round(signal);
        backoff.reset();
        attempts = 0;
        if (this.#error) this.#log.info('recovered');
        this.#error = null;
      } catch (error) {
        if (signal.aborted) break;
        attempts += 1;
        this.#fail(error);
        pauseMs = attempts < this.#config.waitAttempts ? this.#config.waitIntervalMs : backoff.next();
      }
      await sleep(pauseMs, AbortSignal.any([signal, this.#wake.signal])).catch(() => undefined);
    }
  }

  #fail(error: unknown): void {
    const message = errorMessage(error);
    const known = error instanceof PgweaveError ? error : undefined;
    if (this.#error?.message !== message) this.#log.error(`${message}${known?.hint === undefined ? '' : `. ${known.hint}`}`);
    this.#error = { code: known?.code ?? 'unexpected', message, hint: known?.hint ?? null, at: new Date().toISOString() };
  }

  async #round(signal: AbortSignal): Promise<void> {
    const config = this.#config;
    const job = natsJobOf(config);
    const slot = jobObjectName(job);
    await using source = await Session.open(config.source, { role: 'fanout publish', job, side: 'the source', signal });
    const shared = config.targets.filter((t) => t.engine === 'stream' && Object.keys(t.filters).length === 0);
    // Both publications are there before the slot is, so that tables of either kind can come later without the stream being opened anew.
    const { names } = await ensurePublications(source, { job, tables: await unionOfTables(source, [config.rules, ...shared]), both: true });
    const ended = this.#publisher?.failure;
    if (this.#publisher && ended !== undefined) {
      await this.#publisher.close();
      this.#publisher = undefined;
      // Told once; what comes now is another attempt.
      if (!isInterrupted(ended)) this.#fail(ended);
    }
    if (this.#publisher) return;
    await this.#slot(source, slot);
    const { lsn } = await source.one<{ lsn: string }>('select confirmed_flush_lsn::text as lsn from pg_catalog.pg_replication_slots where slot_name = $1', [slot]);
    const { id } = await source.one<{ id: string }>(systemIdentifier());
    const publisher = await ChangePublisher.open({
      source: config.source, job, slot, publications: names, nats: natsOf(config), systemId: id, slotLsn: parseLsn(lsn),
      emit: (event) => {
        if (event.type === 'warning') this.#log.warn(event.hint === undefined ? event.message : `${event.message}. ${event.hint}`);
        else if (event.type === 'log') this.#log[event.level](event.message);
      },
    });
    this.#publisher = publisher;
    this.#log.info(`publishing ${names.join(' and ')} from slot ${slot}`);
    void publisher.ended.then((error) => {
      if (error !== undefined) this.#wake.abort();
    });
  }

  /** Made where there is none. A gap that this leaves is written into the log, where those whom it concerns see it. */
  async #slot(source: Session, slot: string): Promise<void> {
    const there = await readSlot(source, slot);
    if (there?.wal_status === 'lost') {
      if (this.#config.whenSpent !== 'drop-and-resync') throw new PgweaveError('slot-lost', `the slot ${slot} is lost: the source has removed WAL that the log lacks`, { hint: `All targets must be copied anew. With when_wal_budget_is_spent: drop-and-resync that happens by itself; or drop the slot: select pg_drop_replication_slot('${slot}')` });
      await dropSlotNow(source, slot);
    }
    if (!there || there.wal_status === 'lost') {
      this.#log.warn(`the slot ${slot} is made`);
      await source.query(`select pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput')`, [slot]);
    }
  }

  /** Looks at the source once a second: WAL kept for the log, and its budget. */
  async #watch(): Promise<void> {
    const { signal } = this.#stop;
    const slot = jobObjectName(natsJobOf(this.#config));
    let session: Session | undefined;
    while (!signal.aborted) {
      try {
        if (!session || session.lost) session = await Session.open(this.#config.source, { role: 'fanout watch', side: 'the source', signal });
        const lag = (await readSlotLags(session, [slot])).get(slot);
        if (this.#sourceError !== null && this.#sourceError !== 'not asked yet') this.#log.info('the source can be reached again');
        this.#sourceError = null;
        this.#retained = lag?.retainedBytes ?? 0;
        if (lag) await this.#budget(session, slot, lag.retainedBytes);
      } catch (error) {
        if (signal.aborted) break;
        const message = errorMessage(error);
        if (this.#sourceError !== message) this.#log.error(`source: ${message}`);
        this.#sourceError = message;
        await session?.close();
        session = undefined;
      }
      await sleep(watchEveryMs, signal).catch(() => undefined);
    }
    await session?.close();
  }

  async #budget(session: Session, slot: string, retained: number): Promise<void> {
    const budget = this.#config.maxRetainedWal;
    const before = this.#verdict;
    this.#verdict = judgeBudget(retained, budget);
    if (this.#verdict === 'warn' && before === 'within') this.#log.warn(`the source keeps ${formatBytes(retained)} of WAL for the log, over 80 % of the budget of ${formatBytes(budget!)}`);
    if (this.#verdict !== 'spent' || before === 'spent') return;
    const said = `the source keeps ${formatBytes(retained)} of WAL for the log, over the budget of ${formatBytes(budget!)}`;
    if (this.#config.whenSpent === 'keep') {
      this.#log.error(`${said}; it is kept, as the configuration says (when_wal_budget_is_spent: keep)`);
      return;
    }
    this.#log.error(`${said}: the slot is dropped, and all targets will be copied anew`);
    this.#publisher?.fail(new PgweaveError('wal-budget-spent', said));
    await dropSlotNow(session, slot);
  }
}

function natsOf(config: FanoutConfig): NonNullable<FanoutConfig['log']> {
  if (!config.log) throw usageError(`${config.path} has no log: there is nothing to publish to`, 'Add log: { nats: { servers: [nats://host:4222], stream: NAME } } under replication; without it, pgweave fanout run reads the source for all its targets.');
  return config.log;
}
