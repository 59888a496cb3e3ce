import { sleep } from '../../core/abort.ts';
import { isInterrupted } from '../../core/errors.ts';
import type { ConnectionSpec } from '../../pg/conninfo.ts';
import { Session } from '../../pg/session.ts';
import { isConnectionLoss, sqlstate, sqlstateOf } from '../../pg/sqlstate.ts';

export interface WriterResult {
  /** Transactions whose commit the server acknowledged, in order. */
  readonly acknowledged: number;
  /** Transactions whose commit got no answer: they may or may not have taken place. */
  readonly inDoubt: number;
  readonly refused: number;
  /** Longest time without an acknowledged commit, milliseconds. */
  readonly longestGapMs: number;
}

/**
 * An application that keeps writing: orders with lines, stock, payments, cancellations; one acknowledged number a transaction, so that afterwards each
 * acknowledged commit can be looked for. It writes to `primary()`; where writes are refused or the connection ends it asks again.
 */
export class ShopWriter {
  readonly #id: number;
  readonly #primary: () => ConnectionSpec;
  readonly #stop = new AbortController();
  readonly #acknowledged: bigint[] = [];
  #inDoubt = 0;
  #refused = 0;
  #longestGapMs = 0;
  #last = Date.now();
  #n = 0n;
  #run: Promise<void> | undefined;

  constructor(id: number, primary: () => ConnectionSpec) {
    this.#id = id;
    this.#primary = primary;
  }

  start(): void {
    this.#run = this.#loop();
  }

  /** Acknowledged so far. */
  get count(): number {
    return this.#acknowledged.length;
  }

  async stop(): Promise<WriterResult> {
    this.#stop.abort();
    await this.#run;
    return { acknowledged: this.#acknowledged.length, inDoubt: this.#inDoubt, refused: this.#refused, longestGapMs: this.#longestGapMs };
  }

  /** How many of the acknowledged transactions a database does not hold. */
  async missingIn(session: Session): Promise<number> {
    const [row] = await session.query<{ found: bigint }>('select count(*) as found from shop.acknowledged where writer = $1 and n = any($2::int8[])', [this.#id, `{${this.#acknowledged.join(',')}}`]);
    return this.#acknowledged.length - Number(row!.found);
  }

  async #loop(): Promise<void> {
    let session: Session | undefined;
    while (!this.#stop.signal.aborted) {
      try {
        session ??= await this.#connect();
        await this.#transaction(session);
      } catch (error) {
        if (isInterrupted(error)) break;
        await session?.close();
        session = undefined;
        if (sqlstateOf(error) !== sqlstate.readOnlySqlTransaction && !isConnectionLoss(error) && !('retry' in (error as object) && (error as { retry?: string }).retry === 'backoff')) throw error;
        this.#refused += 1;
        // Applications retry; 20 ms keeps the measured gap honest.
        await sleep(20);
      }
    }
    await session?.close();
  }

  async #connect(): Promise<Session> {
    const session = await Session.open(this.#primary(), { role: 'demo writer' });
    // An application is no session of ours: it obeys what the database says about writing, and a switchover ends it.
    await session.query(`reset default_transaction_read_only; set application_name = 'shop'`);
    return session;
  }

  async #transaction(session: Session): Promise<void> {
    this.#n += 1n;
    const n = this.#n;
    await session.query('begin');
    const kind = Number(n % 10n);
    if (kind < 6) {
      const [order] = await session.query<{ id: bigint }>(`insert into shop.orders (customer, total, note) select 1 + floor(random() * c.n)::bigint, 10, 'live' from (select count(*) n from shop.customers) c returning id`);
      await session.query(`insert into shop.order_lines select $1::int8, i, 1 + floor(random() * 9)::int, 1, 9.99 from generate_series(1, 3) i`, [order!.id.toString()]);
      await session.query('update shop.inventory set in_stock = in_stock - 1 where product = 1 + floor(random() * 9)::int');
    } else if (kind < 8) await session.query(`update shop.orders set state = 'paid', total = total + 1 where id in (select id from shop.orders order by id desc limit 3)`);
    else if (kind === 8) await session.query(`delete from shop.orders where id in (select id from shop.orders where note = 'live' order by id limit 1)`);
    else await session.query(`insert into shop.events (at, kind, body) values (now(), 'live', jsonb_build_object('n', $1::text))`, [n.toString()]);
    await session.query('insert into shop.acknowledged values ($1, $2)', [this.#id, n.toString()]);
    try {
      await session.query('commit');
    } catch (error) {
      if (isConnectionLoss(error)) this.#inDoubt += 1;
      throw error;
    }
    this.#acknowledged.push(n);
    const now = Date.now();
    this.#longestGapMs = Math.max(this.#longestGapMs, now - this.#last);
    this.#last = now;
  }
}
