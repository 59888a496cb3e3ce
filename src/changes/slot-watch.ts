import { slotState, type SlotStateRow } from '../catalog/slot-state.ts';
import { sleep } from '../core/abort.ts';
import { PgweaveError } from '../core/errors.ts';
import type { Emit } from '../core/events.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';
import { maxLsn, parseLsn, zeroLsn, type Lsn } from '../pg/lsn.ts';
import { Session } from '../pg/session.ts';
import { riskWarning, slotLost, slotRisk, type SlotRisk } from './slot-check.ts';

/** Nobody needs the same numbers more often than this. */
const emitEveryMs = 10_000;

/** After a lost connection. */
const lookAgainMs = 500;

export interface SlotWatchOptions {
  readonly source: ConnectionSpec;
  readonly job?: string;
  readonly slot: string;
  readonly everyMs: number;
  readonly emit: Emit;
  /** The slot is lost: nothing can be received any more. */
  readonly onLost: (error: Error) => void;
  /** The slot is about to be lost, or the server ended our connection: it may be about to end the walsender too. */
  readonly onTrouble: () => void;
  /**
   * The server takes no connections: it is shutting down (or starting, when nothing is connected yet). A walsender then waits until everything sent is confirmed, and its server with it: while a
   * target is behind or away that is for ever, since our statuses keep it alive. So the replication connection must end. Source: WalSndDone in walsender.c.
   */
  readonly onStopping?: () => void;
}

/**
 * Asks the source now and then how its slot is, over a connection of its own: reports `slot-health`, warns while there is time to act, and knows the source's end
 * of WAL, which the replication stream itself does not tell [hard case 20].
 */
export class SlotWatch {
  readonly #options: SlotWatchOptions;
  readonly #abort = new AbortController();
  #running: Promise<void> = Promise.resolve();
  #risk: SlotRisk = 'none';
  #emittedAt = Number.NEGATIVE_INFINITY;
  #emittedStatus = '';
  #sourceLsn: Lsn = zeroLsn;

  constructor(options: SlotWatchOptions) {
    this.#options = options;
    this.#running = this.#run();
  }

  /** The source's end of WAL as last heard. */
  get sourceLsn(): Lsn {
    return this.#sourceLsn;
  }

  async stop(): Promise<void> {
    this.#abort.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#abort;
    while (!signal.aborted) {
      let pauseMs = this.#options.everyMs;
      try {
        // A new connection after every failure; where the source is away the receiver says so.
        await using session = await Session.open(this.#options.source, { role: 'slot health', side: 'the source', signal, ...(this.#options.job === undefined ? {} : { job: this.#options.job }) });
        for (;;) {
          const [row] = await session.query<SlotStateRow & Record<string, unknown>>(slotState(this.#options.slot, session.serverVersion));
          if (row) this.#look(row);
          await sleep(this.#options.everyMs, signal);
        }
      } catch (error) {
        if (signal.aborted) return;
        this.#options.onTrouble();
        if (error instanceof PgweaveError && error.code === 'server-starting') this.#options.onStopping?.();
        // A connection that was ended is soon made again or refused, which tells more.
        else pauseMs = Math.min(pauseMs, lookAgainMs);
        await sleep(pauseMs, signal).catch(() => undefined);
      }
    }
  }

  #look(row: SlotStateRow): void {
    const { slot, emit } = this.#options;
    this.#sourceLsn = maxLsn(this.#sourceLsn, parseLsn(row.current_lsn));
    const now = performance.now();
    const walStatus = row.wal_status ?? 'reserved';
    if (now - this.#emittedAt >= emitEveryMs || walStatus !== this.#emittedStatus) {
      this.#emittedAt = now;
      this.#emittedStatus = walStatus;
      emit({ type: 'slot-health', slot, walStatus, retainedBytes: Number(row.retained_bytes ?? 0n), safeBytes: row.safe_wal_size === null ? null : Number(row.safe_wal_size) });
    }
    const risk = slotRisk(row);
    const before = this.#risk;
    this.#risk = risk;
    if (risk === 'urgent' || risk === 'lost') this.#options.onTrouble();
    if (risk === before) return;
    if (risk === 'lost') this.#options.onLost(slotLost(slot, row.invalidation));
    else if (risk !== 'none') emit({ type: 'warning', ...riskWarning(slot, risk, row) });
  }
}
