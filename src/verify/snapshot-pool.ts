import type { ConnectionSpec } from '../pg/conninfo.ts';
import { quoteLiteral } from '../pg/identifiers.ts';
import { Session } from '../pg/session.ts';
import { checksumSettings } from './checksum-sql.ts';

/** One side at one moment: other sessions can read in it for as long as whoever took it keeps it open. */
export interface VerifySnapshot {
  readonly side: 'source' | 'target';
  readonly spec: ConnectionSpec;
  /** For `set transaction snapshot`. */
  readonly id: string;
}

/** Some sessions that read in one snapshot. */
export class SnapshotPool implements AsyncDisposable {
  readonly #snapshot: VerifySnapshot;
  readonly #options: { readonly job: string; readonly signal?: AbortSignal | undefined };
  readonly #idle: Session[] = [];
  readonly #all: Session[] = [];
  #opened = 0;

  constructor(snapshot: VerifySnapshot, options: { readonly job: string; readonly signal?: AbortSignal | undefined }) {
    this.#snapshot = snapshot;
    this.#options = options;
  }

  /**
   * Runs `work` in a transaction of its own in the snapshot, on an idle session or a new one. A transaction for each piece of work, so that no lock on a table outlasts its reading:
   * else a long verification would stand in the way of DDL on the source.
   */
  async use<T>(work: (session: Session) => Promise<T>): Promise<T> {
    const session = this.#idle.pop() ?? (await this.#open());
    let usable = true;
    try {
      await session.query(`begin isolation level repeatable read read only; set transaction snapshot ${quoteLiteral(this.#snapshot.id)}`);
      const result = await work(session);
      await session.query('commit');
      return result;
    } catch (error) {
      usable = await session.query('rollback').then(() => true, () => false);
      throw error;
    } finally {
      if (usable) this.#idle.push(session);
    }
  }

  async #open(): Promise<Session> {
    this.#opened += 1;
    const session = await Session.open(this.#snapshot.spec, { role: `verify-${this.#opened}`, job: this.#options.job, side: `the ${this.#snapshot.side}`, signal: this.#options.signal });
    this.#all.push(session);
    await session.query(checksumSettings);
    return session;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#all.map((s) => s.close()));
  }
}

/** Runs `work` over all items, at most `limit` at a time. The first error stops what has not begun and is thrown once all that runs has ended. */
export async function eachLimited<T>(items: readonly T[], limit: number, work: (item: T) => Promise<void>): Promise<void> {
  let next = 0;
  let failed: { error: unknown } | undefined;
  const worker = async () => {
    while (!failed && next < items.length) {
      const item = items[next] as T;
      next += 1;
      try {
        await work(item);
      } catch (error) {
        failed ??= { error };
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, worker));
  if (failed) throw failed.error;
}
