import { PgweaveError } from '../core/errors.ts';
import type { TableRef } from '../core/tables.ts';
import type { Session } from '../pg/session.ts';
import type { FanoutConfig, FanoutTarget } from './config.ts';
import type { SlotLag } from './source-watch.ts';

/** What a target reports after each round. */
export interface TargetFacts {
  readonly tables: number;
  readonly ready: number;
  readonly added: readonly TableRef[];
  readonly removed: readonly TableRef[];
  /** As `server_version` prints it. */
  readonly version: string;
}

/** A slot as one target sees it. `rows`: applied since the service began, where it counts them. */
export interface TargetLag extends SlotLag {
  readonly rows?: number;
}

/** What a round is given. */
export interface Round {
  readonly signal: AbortSignal;
  readonly say: (text: string) => void;
  /**
   * Runs what changes things on the source that targets share (publications, a shared slot), one after another. Rejects where the configuration of this round is not the newest any more: a slow
   * round must not put back what a newer one has changed. Only the source may be waited for in it: a target that hangs would hold up the others.
   */
  readonly inTurn: <T>(work: () => Promise<T>) => Promise<T>;
}

/** How an engine keeps one target. `reconcile` is one round; it may be repeated at any time. */
export interface Engine {
  reconcile(config: FanoutConfig, target: FanoutTarget, round: Round): Promise<TargetFacts>;
  /** Begins the target anew: its rows are copied in the next round. */
  reset(config: FanoutConfig, target: FanoutTarget, signal: AbortSignal): Promise<void>;
  /** Lets go of the target for good. Returns what could not be removed. */
  remove(config: FanoutConfig, target: FanoutTarget, remaining: readonly FanoutTarget[], signal: AbortSignal): Promise<string[]>;
  /** The slot on the source that belongs to the target, for its lag. */
  slotOf(config: FanoutConfig, target: FanoutTarget): string;
  /** The target's own lag, where the slot is not its alone, or more is known of it. */
  lagOf?(config: FanoutConfig, target: FanoutTarget, slot: SlotLag): TargetLag;
  /** Keeps no more WAL for the target: it has to begin anew. */
  giveUp(config: FanoutConfig, target: FanoutTarget, source: Session): Promise<void>;
}

/** With `when_wal_budget_is_spent: drop-and-resync` the service begins such a target anew by itself. */
export function slotLostError(slot: string, target: FanoutTarget, why: string): PgweaveError {
  return new PgweaveError('slot-lost', `target ${target.name} cannot go on from its slot ${slot}, ${why}: changes since then are not known`, { hint: 'Its rows must be brought anew: the service does so with when_wal_budget_is_spent: drop-and-resync.' });
}

/** A round that began before the configuration was replaced. The next one begins at once. */
export function outdatedRoundError(): PgweaveError {
  return new PgweaveError('configuration-replaced', 'the configuration was replaced meanwhile', { retry: 'backoff' });
}
