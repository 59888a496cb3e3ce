import { ensurePgweaveTables } from '../catalog/pgweave-schema.ts';
import { quoteLiteral } from '../pg/identifiers.ts';
import type { Session } from '../pg/session.ts';

const statements: readonly string[] = [
  `create table if not exists pgweave.ledger (
     job text not null, key text not null, note text, done_at pg_catalog.timestamptz not null default pg_catalog.clock_timestamp(), primary key (job, key))`,
];

/**
 * What a job has done on its target, one line each, written in the transaction that did it: so a rerun goes on exactly where the last one stopped [hard case 48].
 * Lives in `pgweave.ledger` of the target.
 */
export class Ledger {
  readonly job: string;
  readonly #done: Set<string>;

  private constructor(job: string, done: Set<string>) {
    this.job = job;
    this.#done = done;
  }

  /** Makes the table where it is missing and reads the job's lines. */
  static async open(session: Session, job: string): Promise<Ledger> {
    await ensurePgweaveTables(session, 'schema', 1, statements);
    const rows = await session.query<{ key: string }>('select key from pgweave.ledger where job = $1', [job]);
    return new Ledger(job, new Set(rows.map((row) => row.key)));
  }

  /** Whether an earlier run or this one has done it. */
  done(key: string): boolean {
    return this.#done.has(key);
  }

  get size(): number {
    return this.#done.size;
  }

  /** One INSERT as plain SQL, without parameters, to send inside of a transaction on any connection to the target. Call {@link confirm} after the commit. */
  lineSql(key: string, note?: string): string {
    const literal = (text: string) => quoteLiteral(text).trim();
    return `insert into pgweave.ledger (job, key, note) values (${literal(this.job)}, ${literal(key)}, ${note === undefined ? 'null' : literal(note)}) on conflict (job, key) do nothing`;
  }

  /** Tells that the transaction with the key's line has committed. */
  confirm(...keys: readonly string[]): void {
    for (const key of keys) this.#done.add(key);
  }

  /** Writes the line on a session, inside of the caller's transaction. Call {@link confirm} after the commit. */
  async mark(session: Session, key: string, note?: string): Promise<void> {
    await session.query(this.lineSql(key, note));
  }

  /** Forgets everything of the job: the next run begins anew. */
  async forget(session: Session): Promise<void> {
    await session.query('delete from pgweave.ledger where job = $1', [this.job]);
    this.#done.clear();
  }
}
