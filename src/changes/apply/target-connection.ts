import { Backoff, sleep, throwIfAborted } from '../../core/abort.ts';
import { errorMessage, isInterrupted, PgweaveError } from '../../core/errors.ts';
import type { Emit } from '../../core/events.ts';
import { formatLsn, zeroLsn, type Lsn } from '../../pg/lsn.ts';
import type { Session } from '../../pg/session.ts';
import { ApplySession, type ApplySessionOptions } from './apply-session.ts';
import { mayRetry } from './failures.ts';

export interface TargetConnectionOptions extends ApplySessionOptions {
  /** A session for everything but the changes themselves; owned by the caller, who replaces it where it is lost. */
  readonly control: () => Promise<Session>;
  readonly emit: Emit;
}

/** The applier's two sessions on the target, made anew where they are lost. */
export class TargetConnection {
  readonly #options: TargetConnectionOptions;
  readonly #onLost: () => void;
  #session: ApplySession | undefined;
  #control!: Session;
  #warnedOfRole = false;

  /** `onLost`: called when the session that writes changes is lost. */
  constructor(options: TargetConnectionOptions, onLost: () => void) {
    this.#options = options;
    this.#onLost = onLost;
  }

  /** The session that writes changes. Only once connected. */
  get session(): ApplySession {
    return this.#session!;
  }

  /** The session for states and parked changes. Only once connected. */
  get control(): Session {
    return this.#control;
  }

  /** End of the last source transaction known to be committed; zero where none is. */
  get committedLsn(): Lsn {
    return this.#session?.committedLsn ?? zeroLsn;
  }

  close(): void {
    this.#session?.close();
  }

  async connect(): Promise<void> {
    const { control, emit } = this.#options;
    this.#control = await control();
    this.#session = await ApplySession.open(this.#options);
    this.#session.pipeline.onLost(this.#onLost);
    if (this.#session.replica || this.#warnedOfRole) return;
    this.#warnedOfRole = true;
    emit({
      type: 'warning', code: 'no-replica-role', message: 'the role may not set session_replication_role on the target: triggers and foreign keys there act on every change, and changes go one by one in source order',
      hint: `PostgreSQL 15 and newer: grant set on parameter session_replication_role to the role; older: use a superuser, or disable the triggers on the target`,
    });
  }

  /**
   * Connects again and does `prepare`, with pauses that grow, until both work. Throws `target-went-back` where the target has lost what it had, the interruption error when `ending` fires, and
   * what trying again cannot help.
   */
  async reconnect(reason: Error, ending: AbortSignal, prepare: () => Promise<void>): Promise<void> {
    const { emit } = this.#options;
    const before = this.committedLsn;
    this.#session?.destroy();
    emit({ type: 'counter', name: 'reconnects', by: 1 });
    emit({ type: 'log', level: 'warn', message: `the connection to the target was lost: ${errorMessage(reason)}; connecting again` });
    const backoff = new Backoff({ firstMs: 50, maxMs: 5000 });
    for (;;) {
      throwIfAborted(ending);
      try {
        await this.connect();
        await prepare();
        if (this.committedLsn < before) throw wentBack(this.committedLsn, before);
        return;
      } catch (error) {
        // It may be the control connection that failed: a session left open would keep the origin from the next one.
        this.#session?.destroy();
        if (isInterrupted(error)) throw error;
        const again = mayRetry(error) || (error instanceof PgweaveError && error.retry === 'backoff');
        if (!again) throw error;
        await sleep(backoff.next(), ending);
      }
    }
  }
}

/** What was confirmed to the source is not on the target any more: going on would leave a gap. */
function wentBack(at: Lsn, before: Lsn): PgweaveError {
  return new PgweaveError('target-went-back', `the target has the source's changes up to ${formatLsn(at)} only, but had them up to ${formatLsn(before)} before the connection was lost: it was set back`, {
    retry: 'never', hint: 'Was it failed over to a standby that lacked the last commits? Start again: where the slot still holds what is missing it is sent once more, else this is said.',
  });
}
