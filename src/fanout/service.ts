import { setMaxListeners } from 'node:events';
import { sleep } from '../core/abort.ts';
import { errorMessage, usageError } from '../core/errors.ts';
import type { Emit, Phase } from '../core/events.ts';
import type { Log } from '../core/log.ts';
import { formatBytes } from '../core/units.ts';
import { describeConnection } from '../pg/conninfo.ts';
import { Session } from '../pg/session.ts';
import type { FanoutConfig, FanoutTarget } from './config.ts';
import { outdatedRoundError, type Engine } from './engine.ts';
import type { FanoutHealth } from './health.ts';
import { dropSlotNow, reconcileNative, removeNative, resetNative } from './native-target.ts';
import { judgeBudget, readSlotLags, readSlotUse, type BudgetVerdict } from './source-watch.ts';
import { StreamEngine } from './stream-engine.ts';
import { TargetKeeper } from './target-keeper.ts';
import { topologyOf, type SourceFacts } from './topology.ts';

const watchEveryMs = 1000;

const nativeEngine: Engine = { reconcile: reconcileNative, reset: resetNative, remove: removeNative, slotOf: (_config, target) => target.subscription, giveUp: (_config, target, source) => dropSlotNow(source, target.subscription) };

/**
 * One source, many targets. Each target has a keeper of its own, so that one that is down or wrong holds nobody up. The configuration can be replaced while it runs; a plan of what will change
 * goes into the log first.
 */
export class FanoutService implements AsyncDisposable {
  readonly #log: Log;
  readonly #emit: Emit;
  readonly #keepers = new Map<string, TargetKeeper>();
  readonly #stop = new AbortController();
  readonly #startedAt = new Date().toISOString();
  readonly #verdicts = new Map<string, BudgetVerdict>();
  readonly #streams: StreamEngine;
  #config: FanoutConfig;
  #loadedAt = new Date().toISOString();
  #configError: string | null = null;
  #sourceError: string | null = 'not asked yet';
  #retained: number | null = null;
  #sourceFacts: SourceFacts | undefined;
  #phase: Phase | undefined;
  #watching: Promise<void> | undefined;
  #changing: Promise<void> = Promise.resolve();
  #turn: Promise<unknown> = Promise.resolve();

  /** `emit` gets the topology once a second, and the phase as it changes. */
  constructor(config: FanoutConfig, log: Log, emit: Emit = () => undefined) {
    this.#emit = emit;
    this.#config = config;
    this.#log = log;
    this.#streams = new StreamEngine(log, (name) => this.#keepers.get(name)?.wake());
    setMaxListeners(0, this.#stop.signal);
  }

  get config(): FanoutConfig {
    return this.#config;
  }

  start(): void {
    this.#log.info(`source ${describeConnection(this.#config.source)}, ${this.#config.targets.length} targets, configuration ${this.#config.path}`);
    for (const target of this.#config.targets) this.#add(target);
    this.#watching = this.#watch();
  }

  /** Takes a new configuration: says what will change, then changes it. Calls are carried out one after another. */
  async replace(config: FanoutConfig): Promise<void> {
    this.#changing = this.#changing.then(() => this.#replace(config));
    await this.#changing;
  }

  /** The file cannot be used: the last good configuration stays. */
  refuse(error: unknown): void {
    this.#configError = errorMessage(error);
    this.#log.error(`the new configuration is not used: ${this.#configError}; the last good one stays`);
  }

  health(): FanoutHealth {
    const targets = [...this.#keepers.values()].map((k) => k.health());
    const reachable = this.#sourceError === null;
    const healthy = reachable && this.#configError === null && targets.every((t) => t.healthy);
    return {
      status: healthy ? 'healthy' : 'unhealthy', ready: reachable && targets.every((t) => t.lastSuccessAt !== null), startedAt: this.#startedAt, config: { path: this.#config.path, loadedAt: this.#loadedAt, error: this.#configError },
      source: { address: describeConnection(this.#config.source), reachable, error: this.#sourceError, retainedBytes: this.#retained, budgetBytes: this.#config.maxRetainedWal ?? null }, targets,
    };
  }

  /** Ends the rounds in hand and closes. Nothing is dropped: subscriptions go on by themselves, streams go on where they stopped. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#changing.catch(() => undefined);
    await Promise.all([...this.#keepers.values()].map((k) => k.stop()));
    await this.#streams.close();
    await this.#watching;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  #engineOf(target: FanoutTarget): Engine {
    return target.engine === 'native' ? nativeEngine : this.#streams;
  }

  #add(target: FanoutTarget): void {
    const keeper = new TargetKeeper(this.#config, target, this.#engineOf(target), this.#log, (config, work) => this.#inTurn(config, work));
    this.#keepers.set(target.name, keeper);
    keeper.start();
  }

  #inTurn<T>(config: FanoutConfig, work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(() => {
      if (config !== this.#config) throw outdatedRoundError();
      return work();
    });
    this.#turn = turn.catch(() => undefined);
    return turn;
  }

  async #replace(config: FanoutConfig): Promise<void> {
    if (JSON.stringify(config.log) !== JSON.stringify(this.#config.log)) {
      this.refuse(usageError('log was changed', 'Start the service anew for that.'));
      return;
    }
    const before = new Map(this.#config.targets.map((t) => [t.name, t]));
    const after = new Map(config.targets.map((t) => [t.name, t]));
    const gone = [...before.keys()].filter((name) => !after.has(name) || after.get(name)!.engine !== before.get(name)!.engine || after.get(name)!.subscription !== before.get(name)!.subscription);
    const come = [...after.keys()].filter((name) => !before.has(name) || gone.includes(name));
    const changed = [...after.keys()].filter((name) => before.has(name) && !gone.includes(name) && JSON.stringify(plain(before.get(name)!)) !== JSON.stringify(plain(after.get(name)!)));
    const plan = [...gone.map((n) => `remove ${n}`), ...come.map((n) => `add ${n}`), ...changed.map((n) => `change ${n}`)];
    this.#log.info(`configuration ${config.path} read again: ${plan.length === 0 ? 'targets unchanged' : plan.join(', ')}`);
    for (const name of gone) {
      const keeper = this.#keepers.get(name);
      this.#keepers.delete(name);
      try {
        await keeper?.remove(config.targets, this.#stop.signal);
      } catch (error) {
        this.#log.warn(`${name}: could not be removed whole: ${errorMessage(error)}`);
      }
    }
    this.#config = config;
    this.#loadedAt = new Date().toISOString();
    this.#configError = null;
    for (const name of after.keys()) {
      if (come.includes(name)) this.#add(after.get(name)!);
      else this.#keepers.get(name)?.update(config, after.get(name)!);
    }
  }

  /** Looks at the source once a second: lag of each target, WAL kept for them. */
  async #watch(): Promise<void> {
    const { signal } = this.#stop;
    let session: Session | undefined;
    while (!signal.aborted) {
      try {
        if (!session || session.lost) session = await Session.open(this.#config.source, { role: 'fanout watch', side: 'the source', signal });
        const keepers = [...this.#keepers.values()];
        const lags = await readSlotLags(session, [...new Set(keepers.map((k) => k.slot))]);
        if (this.#sourceError !== null && this.#sourceError !== 'not asked yet') this.#log.info('the source can be reached again');
        this.#sourceError = null;
        this.#sourceFacts = { version: session.serverVersionText, ...(await readSlotUse(session)) };
        this.#retained = lags.size === 0 ? 0 : Math.max(...[...lags.values()].map((l) => l.retainedBytes));
        for (const keeper of keepers) {
          const lag = keeper.observe(lags.get(keeper.slot));
          if (lag) await this.#budget(session, keeper, lag.retainedBytes, lag.walStatus);
        }
      } catch (error) {
        if (signal.aborted) break;
        const message = errorMessage(error);
        if (this.#sourceError !== message) this.#log.error(`source: ${message}`);
        this.#sourceError = message;
        await session?.close();
        session = undefined;
      }
      this.#tell();
      await sleep(watchEveryMs, signal).catch(() => undefined);
    }
    await session?.close();
    this.#emit({ type: 'phase', phase: 'stopped' });
  }

  #tell(): void {
    const health = this.health();
    const phase: Phase = !health.ready ? 'preparing' : health.targets.some((t) => t.state === 'syncing') ? 'copying' : 'streaming';
    if (phase !== this.#phase) this.#emit({ type: 'phase', phase });
    this.#phase = phase;
    this.#emit({ type: 'topology', topology: topologyOf(this.#config, health, this.#sourceFacts) });
  }

  async #budget(session: Session, keeper: TargetKeeper, retained: number, walStatus: string): Promise<void> {
    const verdict = walStatus === 'lost' ? 'spent' : judgeBudget(retained, this.#config.maxRetainedWal);
    const before = this.#verdicts.get(keeper.name);
    this.#verdicts.set(keeper.name, verdict);
    const budget = this.#config.maxRetainedWal;
    if (verdict === 'warn' && before !== 'warn') this.#log.warn(`${keeper.name}: the source keeps ${formatBytes(retained)} of WAL for it, over 80 % of the budget of ${formatBytes(budget!)}`);
    if (verdict !== 'spent') return;
    const said = walStatus === 'lost' ? 'its slot is lost' : `the source keeps ${formatBytes(retained)} of WAL for it, over the budget of ${formatBytes(budget!)}`;
    if (this.#config.whenSpent === 'keep') {
      if (before !== 'spent') this.#log.error(`${keeper.name}: ${said}; it is kept, as the configuration says (when_wal_budget_is_spent: keep)`);
      return;
    }
    await keeper.giveUpSlot(`${said}; no more is kept for it, and its rows will be copied anew`, session);
  }
}

/** What counts as a change of a target; passwords count, and stay here. */
function plain(target: FanoutTarget): unknown {
  return target;
}
