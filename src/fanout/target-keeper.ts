import { setMaxListeners } from 'node:events';
import { Backoff, sleep } from '../core/abort.ts';
import { errorMessage, isInterrupted, PgweaveError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';
import { displayName } from '../pg/identifiers.ts';
import type { TableRef } from '../core/tables.ts';
import type { FanoutConfig, FanoutTarget } from './config.ts';
import type { TargetFacts } from './native-target.ts';
import type { Session } from '../pg/session.ts';
import type { SlotLag } from './source-watch.ts';

/** `waiting`: not reached yet; `setting-up`: schema, publication, subscription; `syncing`: the initial copy; `streaming`; `resync-needed`: its slot was given up, rows are to be copied anew; `failing`: see the error. */
export type TargetState = 'waiting' | 'setting-up' | 'syncing' | 'streaming' | 'resync-needed' | 'failing';

export interface TargetHealth {
  readonly name: string;
  readonly engine: string;
  readonly state: TargetState;
  readonly healthy: boolean;
  readonly tables: number;
  readonly tablesReady: number;
  readonly lagBytes: number | null;
  readonly lagMs: number | null;
  readonly retainedBytes: number | null;
  readonly attempts: number;
  readonly lastError: { readonly code: string; readonly message: string; readonly hint: string | null; readonly at: string } | null;
  readonly lastSuccessAt: string | null;
}

/** How an engine keeps one target. `reconcile` is one round; it may be repeated at any time. */
export interface Engine {
  reconcile(config: FanoutConfig, target: FanoutTarget, signal: AbortSignal, say: (text: string) => void): Promise<TargetFacts>;
  /** Begins the target anew: its rows are copied in the next round. */
  reset(config: FanoutConfig, target: FanoutTarget, signal: AbortSignal): Promise<void>;
  /** Lets go of the target for good. Returns what could not be removed. */
  remove(config: FanoutConfig, target: FanoutTarget, remaining: readonly FanoutTarget[], signal: AbortSignal): Promise<string[]>;
  /** The slot on the source that belongs to the target, for its lag. */
  slotOf(config: FanoutConfig, target: FanoutTarget): string;
  /** The target's own lag, where the slot is not its alone. */
  lagOf?(config: FanoutConfig, target: FanoutTarget, slot: SlotLag): SlotLag;
  /** Keeps no more WAL for the target: it has to begin anew. */
  giveUp(config: FanoutConfig, target: FanoutTarget, source: Session): Promise<void>;
}

/** Keeps one target: rounds in an interval, each target on its own, with backoff while it fails. */
export class TargetKeeper {
  readonly name: string;
  readonly #log: Log;
  readonly #engine: Engine;
  #config: FanoutConfig;
  #target: FanoutTarget;
  #state: TargetState = 'waiting';
  #facts: TargetFacts = { tables: 0, ready: 0, added: [], removed: [] };
  #lag: SlotLag | undefined;
  #error: TargetHealth['lastError'] = null;
  #lastSuccessAt: string | null = null;
  #attempts = 0;
  #wake: AbortController = new AbortController();
  readonly #stop = new AbortController();
  #running: Promise<void> | undefined;

  constructor(config: FanoutConfig, target: FanoutTarget, engine: Engine, log: Log) {
    this.name = target.name;
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

  /** Takes what the source says of the slot; returns the target's own part of it. */
  observe(lag: SlotLag | undefined): SlotLag | undefined {
    this.#lag = lag && (this.#engine.lagOf?.(this.#config, this.#target, lag) ?? lag);
    return this.#lag;
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
      name: this.name, engine: this.#target.engine, state: this.#state, healthy: this.#state === 'streaming' || this.#state === 'syncing', tables: this.#facts.tables, tablesReady: this.#facts.ready, lagBytes: this.#lag?.lagBytes ?? null,
      lagMs: this.#lag?.lagMs ?? null, retainedBytes: this.#lag?.retainedBytes ?? null, attempts: this.#attempts, lastError: this.#error, lastSuccessAt: this.#lastSuccessAt,
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
        if (signal.aborted || isInterrupted(error)) break;
        this.#attempts += 1;
        this.#fail(error);
        pauseMs = this.#attempts < this.#config.waitAttempts ? this.#config.waitIntervalMs : backoff.next();
      }
      await sleep(pauseMs, AbortSignal.any([signal, this.#wake.signal])).catch(() => undefined);
    }
  }

  async #round(signal: AbortSignal): Promise<void> {
    const say = (text: string) => this.#log.info(`${this.name}: ${text}`);
    if (this.#state === 'waiting' || this.#state === 'failing') this.#state = 'setting-up';
    if (this.#state === 'resync-needed') {
      await this.#engine.reset(this.#config, this.#target, signal);
      say('begins anew: its rows are copied again');
    }
    if (this.#config.createSchema && this.#facts.tables === 0) {
      const { setUpSchema } = await import('./setup-schema.ts');
      const { made } = await setUpSchema(this.#config.source, this.#target, signal, () => undefined);
      if (made > 0) say(`${made} tables made`);
    }
    const facts = await this.#engine.reconcile(this.#config, this.#target, signal, say);
    for (const [word, tables] of [['added', facts.added], ['removed, their rows stay', facts.removed]] as const) if (tables.length > 0) say(`${namesOf(tables)} ${word}`);
    const before = this.#state;
    this.#facts = facts;
    this.#state = facts.ready === facts.tables ? 'streaming' : 'syncing';
    if (this.#error) say('recovered');
    this.#error = null;
    this.#lastSuccessAt = new Date().toISOString();
    if (before !== 'streaming' && this.#state === 'streaming') say(`streaming, ${facts.tables} tables`);
  }

  #fail(error: unknown): void {
    const message = errorMessage(error);
    if (this.#error?.message !== message) this.#log.error(`${this.name}: ${message}`);
    const known = error instanceof PgweaveError ? error : undefined;
    this.#error = { code: known?.code ?? 'unexpected', message, hint: known?.hint ?? null, at: new Date().toISOString() };
    if (this.#state !== 'resync-needed') this.#state = this.#lastSuccessAt === null && known?.retry === 'backoff' ? 'waiting' : 'failing';
  }
}

function namesOf(tables: readonly TableRef[]): string {
  return tables.length <= 5 ? tables.map((t) => displayName(t.schema, t.name)).join(', ') : `${tables.length} tables`;
}
