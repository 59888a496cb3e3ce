import { setMaxListeners } from 'node:events';
import { Backoff, sleep } from '../core/abort.ts';
import { errorMessage, PgweaveError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { describeHosts, type ConnectionSpec } from '../pg/conninfo.ts';
import { displayName } from '../pg/identifiers.ts';
import type { TableRef } from '../core/tables.ts';
import type { FanoutConfig, FanoutTarget } from './config.ts';
import type { Engine, Round, TargetFacts, TargetLag } from './engine.ts';
import type { TargetHealth, TargetState } from './health.ts';
import type { Session } from '../pg/session.ts';
import type { SlotLag } from './source-watch.ts';

/** Looks a second apart that a rate is taken over. */
const rateSamples = 10;

/** Keeps one target: rounds in an interval, each target on its own, with backoff while it fails. */
export class TargetKeeper {
  readonly name: string;
  readonly #log: Log;
  readonly #engine: Engine;
  readonly #inTurn: <T>(config: FanoutConfig, work: () => Promise<T>) => Promise<T>;
  #config: FanoutConfig;
  #target: FanoutTarget;
  #currentState: TargetState = 'waiting';
  #stateSince = new Date().toISOString();
  #facts: Omit<TargetFacts, 'version'> & { readonly version: string | null } = { tables: 0, ready: 0, added: [], removed: [], version: null };
  #reachable: boolean | null = null;
  #lag: TargetLag | undefined;
  #samples: { readonly at: number; readonly rows: number }[] = [];
  #error: TargetHealth['lastError'] = null;
  #lastSuccessAt: string | null = null;
  #attempts = 0;
  #wake: AbortController = new AbortController();
  readonly #stop = new AbortController();
  #running: Promise<void> | undefined;

  /** `inTurn` as in Round, for the configuration that is given to it. */
  constructor(config: FanoutConfig, target: FanoutTarget, engine: Engine, log: Log, inTurn: <T>(config: FanoutConfig, work: () => Promise<T>) => Promise<T>) {
    this.name = target.name;
    this.#inTurn = inTurn;
    this.#config = config;
    this.#target = target;
    this.#engine = engine;
    this.#log = log;
    setMaxListeners(0, this.#stop.signal);
  }

  get target(): FanoutTarget {
    return this.#target;
  }

  get connection(): ConnectionSpec {
    return this.#target.connection;
  }

  get slot(): string {
    return this.#engine.slotOf(this.#config, this.#target);
  }

  start(): void {
    this.#running = this.#loop();
  }

  /** New configuration: the next round begins at once. */
  update(config: FanoutConfig, target: FanoutTarget): void {
    this.#config = config;
    this.#target = target;
    this.#wake.abort();
  }

  /** Something has happened that the next round should look at without waiting for its time. */
  wake(): void {
    this.#wake.abort();
  }

  /** Takes what the source says of the slot; returns the target's own part of it. */
  observe(lag: SlotLag | undefined): TargetLag | undefined {
    this.#lag = lag && (this.#engine.lagOf?.(this.#config, this.#target, lag) ?? lag);
    const rows = this.#lag?.rows;
    const last = this.#samples.at(-1);
    // An applier that began anew counts from nothing.
    if (rows === undefined || (last && rows < last.rows)) this.#samples = [];
    if (rows !== undefined) this.#samples = [...this.#samples.slice(-rateSamples), { at: performance.now(), rows }];
    return this.#lag;
  }

  #rowsPerSecond(): number | null {
    const [first] = this.#samples;
    const last = this.#samples.at(-1);
    return first === undefined || last === undefined || first === last ? null : Math.round(((last.rows - first.rows) * 1000) / (last.at - first.at));
  }

  get #state(): TargetState {
    return this.#currentState;
  }

  set #state(state: TargetState) {
    if (state !== this.#currentState) this.#stateSince = new Date().toISOString();
    this.#currentState = state;
  }

  /** Its slot was given up; the next rounds copy its rows anew. */
  async giveUpSlot(reason: string, source: Session): Promise<void> {
    if (this.#state === 'resync-needed') return;
    await this.#engine.giveUp(this.#config, this.#target, source);
    this.#state = 'resync-needed';
    this.#log.warn(`${this.name}: ${reason}`);
    this.#wake.abort();
  }

  health(): TargetHealth {
    return {
      name: this.name, engine: this.#target.engine, version: this.#facts.version, state: this.#state, stateSince: this.#stateSince, reachable: this.#reachable, connected: this.#lag?.active === true, healthy: this.#state === 'streaming' || this.#state === 'syncing', tables: this.#facts.tables, tablesReady: this.#facts.ready, lagBytes: this.#lag?.lagBytes ?? null,
      lagMs: this.#lag?.lagMs ?? null, rowsPerSecond: this.#rowsPerSecond(), retainedBytes: this.#lag?.retainedBytes ?? null, attempts: this.#attempts, lastError: this.#error, lastSuccessAt: this.#lastSuccessAt,
    };
  }

  /** Finishes the round in hand and ends. The servers go on by themselves. */
  async stop(): Promise<void> {
    this.#stop.abort();
    this.#wake.abort();
    await this.#running;
  }

  async remove(remaining: readonly FanoutTarget[], signal: AbortSignal): Promise<void> {
    await this.stop();
    for (const left of await this.#engine.remove(this.#config, this.#target, remaining, signal)) this.#log.warn(`${this.name}: could not be removed: ${left}`);
    this.#log.info(`${this.name}: removed; its rows stay`);
  }

  async #loop(): Promise<void> {
    const { signal } = this.#stop;
    const backoff = new Backoff({ firstMs: this.#config.waitIntervalMs, maxMs: Math.max(this.#config.waitIntervalMs, 60_000), factor: 1.5 });
    while (!signal.aborted) {
      this.#wake = new AbortController();
      let pauseMs = this.#config.reconcileIntervalMs;
      try {
        await this.#round(signal);
        backoff.reset();
        this.#attempts = 0;
        // A copy in progress is looked at more often than a steady stream.
        if (this.#state === 'syncing') pauseMs = Math.min(pauseMs, 1000);
      } catch (error) {
        if (signal.aborted) break;
        if (error instanceof PgweaveError && error.code === 'configuration-replaced') continue;
        this.#attempts += 1;
        this.#fail(error);
        pauseMs = this.#attempts < this.#config.waitAttempts ? this.#config.waitIntervalMs : backoff.next();
      }
      await sleep(pauseMs, AbortSignal.any([signal, this.#wake.signal])).catch(() => undefined);
    }
  }

  async #round(signal: AbortSignal): Promise<void> {
    const config = this.#config;
    const say = (text: string) => this.#log.info(`${this.name}: ${text}`);
    if (this.#state === 'waiting' || this.#state === 'failing') this.#state = 'setting-up';
    if (this.#state === 'resync-needed') {
      await this.#engine.reset(this.#config, this.#target, signal);
      say('begins anew: its rows are copied again');
    }
    const facts = await this.#reconcile(config, this.#target, { signal, say, inTurn: (work) => this.#inTurn(config, work) });
    for (const [word, tables] of [['added', facts.added], ['removed, their rows stay', facts.removed]] as const) if (tables.length > 0) say(`${namesOf(tables)} ${word}`);
    const before = this.#state;
    this.#facts = facts;
    this.#state = facts.ready === facts.tables ? 'streaming' : 'syncing';
    if (this.#error) say('recovered');
    this.#error = null;
    this.#reachable = true;
    this.#lastSuccessAt = new Date().toISOString();
    if (before !== 'streaming' && this.#state === 'streaming') say(`streaming, ${facts.tables} tables`);
  }

  /** Makes the tables that are missing, where the configuration says so: on a new target, on one that was emptied, and for tables that the file has named since. */
  async #reconcile(config: FanoutConfig, target: FanoutTarget, round: Round): Promise<TargetFacts> {
    try {
      return await this.#engine.reconcile(config, target, round);
    } catch (error) {
      if (!config.createSchema || !(error instanceof PgweaveError) || error.code !== 'target-schema-differs') throw error;
      const { setUpSchema } = await import('./setup-schema.ts');
      const { made } = await setUpSchema(config.source, target, round.signal);
      if (made === 0) throw error;
      round.say(`${made} tables made`);
    }
    return await this.#engine.reconcile(config, target, round);
  }

  #fail(error: unknown): void {
    const message = errorMessage(error);
    if (this.#error?.message !== message) this.#log.error(`${this.name}: ${message}`);
    const known = error instanceof PgweaveError ? error : undefined;
    // A connection that failed names its server; it may as well have been the source's.
    const server = known?.details['server'];
    this.#reachable = server === undefined ? this.#reachable : server === describeHosts(this.#target.connection) ? false : null;
    this.#error = { code: known?.code ?? 'unexpected', message, hint: known?.hint ?? null, at: new Date().toISOString() };
    if ((known?.code === 'slot-lost' || known?.code === 'resync-needed') && this.#config.whenSpent === 'drop-and-resync') this.#state = 'resync-needed';
    else if (this.#state !== 'resync-needed') this.#state = this.#lastSuccessAt === null && known?.retry === 'backoff' ? 'waiting' : 'failing';
  }
}

function namesOf(tables: readonly TableRef[]): string {
  return tables.length <= 5 ? tables.map((t) => displayName(t.schema, t.name)).join(', ') : `${tables.length} tables`;
}
