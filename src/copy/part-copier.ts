import { Backoff, sleep } from '../core/abort.ts';
import { PgweaveError } from '../core/errors.ts';
import { failpoint, failpointSync } from '../core/failpoints.ts';
import type { TableRef } from '../core/tables.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';
import { displayName, qualifiedName, quoteIdent, quoteLiteral } from '../pg/identifiers.ts';
import { ServerError } from '../pg/server-error.ts';
import { mayWorkAgain, sqlstate, sqlstateOf } from '../pg/sqlstate.ts';
import { WireConnection } from '../pg/wire-connection.ts';
import type { CopyLedger } from './copy-ledger.ts';
import { partCondition, type TablePart } from './parts.ts';
import { relayCopy, slabBytes } from './relay.ts';
import type { SourceSnapshot } from './snapshot.ts';
import { tableChanged } from './table-changed.ts';
import type { TablePlan } from './table-plan.ts';

export interface PartCopierOptions {
  readonly source: ConnectionSpec;
  readonly target: ConnectionSpec;
  readonly job: string;
  readonly snapshot: SourceSnapshot;
  readonly ledger: CopyLedger;
  /** Encodings of the databases, such as `UTF8`: rows travel in the source's, and only the target converts, if anyone. */
  readonly encoding: string;
  readonly targetEncoding: string;
  /** SQL for the transaction that holds a table's last rows. */
  readonly copiedSql: (table: TableRef) => string;
  /** The part failed in a way that may pass, and begins anew in a moment. */
  readonly onRetry?: (table: TableRef, error: unknown) => void;
  readonly signal: AbortSignal;
}

export interface PartOutcome {
  readonly rows: number;
  readonly bytes: number;
}

/** Consecutive attempts at one part whose connection breaks, before the run ends and the user is asked to look. With backoff that is about a minute. */
const mostAttempts = 8;

/**
 * One worker of the copy: a connection to each side, opened when first needed and again when lost. The rows of a part and its line in the ledger are one transaction on the
 * target, so that whatever happens either both are there or neither.
 */
export class PartCopier implements AsyncDisposable {
  readonly #options: PartCopierOptions;
  readonly #slab = Buffer.allocUnsafeSlow(slabBytes);
  #source: WireConnection | undefined;
  #target: WireConnection | undefined;
  /** Tables that cannot be truncated (a foreign key points at them): they are emptied by DELETE, and FREEZE is not possible. */
  readonly #withoutTruncate = new Set<TablePlan>();

  constructor(options: PartCopierOptions) {
    this.#options = options;
  }

  /**
   * Copies a part. Lost connections are made again and the part begins anew. Throws `snapshot-lost` where the source connection is gone and the snapshot cannot be imported
   * any more, `table-changed` where the source's table is another one since the snapshot was taken, and what the servers said for everything else.
   */
  async copy(plan: TablePlan, part: TablePart, onProgress: (bytes: number, rows: number) => void): Promise<PartOutcome> {
    const backoff = new Backoff({ firstMs: 200, maxMs: 15_000 });
    for (;;) {
      let passed = { bytes: 0, rows: 0 };
      try {
        const source = await this.#openSource();
        const target = await this.#openTarget();
        if (backoff.attempt > 0) {
          const { rows } = await target.query(this.#options.ledger.partDoneSql(plan, part, this.#options.snapshot.fingerprint));
          if (rows[0]) return { rows: Number(rows[0][0]), bytes: 0 };
        }
        await this.#checkTable(source, plan);
        const outcome = await this.#relay(source, target, plan, part, (bytes, rows) => {
          passed = { bytes: passed.bytes + bytes, rows: passed.rows + rows };
          onProgress(bytes, rows);
        });
        await failpoint('copy.part-committed');
        return outcome;
      } catch (error) {
        // What was counted belongs to rows that were rolled back.
        if (passed.bytes > 0) onProgress(-passed.bytes, -passed.rows);
        await this.#recover();
        if (this.#options.signal.aborted || error instanceof SnapshotLost) throw error;
        if (sqlstateOf(error) === sqlstate.featureNotSupported && !this.#withoutTruncate.has(plan) && plan.parts.length === 1) {
          this.#withoutTruncate.add(plan);
          continue;
        }
        if (error instanceof TableRewritten || !mayWorkAgain(error) || backoff.attempt >= mostAttempts) throw error;
        this.#options.onRetry?.(plan, error);
        await sleep(backoff.next(), this.#options.signal);
      }
    }
  }

  /** Empties a table that will be copied in several parts, and forgets parts of older snapshots. */
  async empty(plan: TablePlan): Promise<void> {
    const target = await this.#openTarget();
    const name = qualifiedName(plan.target.schema, plan.target.name);
    try {
      await target.query(`begin; truncate only ${name}; ${this.#options.ledger.forgetPartsSql(plan)}; commit`);
    } catch (error) {
      await this.#recover();
      if (sqlstateOf(error) !== sqlstate.featureNotSupported) throw error;
      await (await this.#openTarget()).query(`begin; delete from only ${name}; ${this.#options.ledger.forgetPartsSql(plan)}; commit`);
    }
  }

  /** Runs SQL on the target connection, outside any part. */
  async runOnTarget(sql: string): Promise<void> {
    await (await this.#openTarget()).query(sql);
  }

  async close(): Promise<void> {
    await Promise.all([this.#source?.close(), this.#target?.close()]);
    this.#source = undefined;
    this.#target = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #relay(source: WireConnection, target: WireConnection, plan: TablePlan, part: TablePart, onProgress: (bytes: number, rows: number) => void): Promise<PartOutcome> {
    const { ledger, snapshot, copiedSql } = this.#options;
    const whole = plan.parts.length === 1;
    const name = qualifiedName(plan.schema, plan.name);
    const into = qualifiedName(plan.target.schema, plan.target.name);
    const columns = plan.columns.map(quoteIdent).join(', ');
    const { encoding, targetEncoding } = this.#options;
    const format = (travelsIn: string) => (plan.binary ? 'format binary' : `format text, encoding ${quoteLiteral(travelsIn)}`);
    // SQL_ASCII says that nobody knows the encoding: COPY FROM would then store bytes that the target's own encoding forbids [hard case 33]. Said to be in the target's, they are checked.
    const arrivesIn = encoding === 'SQL_ASCII' ? targetEncoding : encoding;
    const conditions = [partCondition(part), plan.condition === undefined ? undefined : `(${plan.condition})`].filter((c) => c !== undefined);
    // COPY of a table by name reads ONLY that table and skips the executor; a query is needed for conditions and where no column travels.
    const from = conditions.length === 0 && plan.columns.length > 0 ? `${name} (${columns})` : `(select ${columns} from only ${name}${conditions.length > 0 ? ` where ${conditions.join(' and ')}` : ''})`;
    const empties = whole && !plan.extensionConfig;
    const truncates = empties && !this.#withoutTruncate.has(plan);
    // FREEZE wants the table emptied in the same transaction. Nobody else reads the target's table yet, so that rows visible to older snapshots harm nobody; index builds and
    // the first VACUUM then need not write every page once more.
    const options = truncates ? `freeze, ${format(arrivesIn)}` : format(arrivesIn);
    const emptying = truncates ? `truncate only ${into}; ` : empties ? `delete from only ${into}; ` : '';
    const outcome = await relayCopy(source, target, { copyOut: `copy ${from} to stdout with (${format(encoding)})`, copyIn: `begin; ${emptying}copy ${into}${columns === '' ? '' : ` (${columns})`} from stdin with (${options})` }, (bytes, rows) => {
      failpointSync('copy.chunk');
      onProgress(bytes, rows);
    }, this.#slab);
    await failpoint('copy.part-relayed');
    await source.query('rollback to savepoint part; release savepoint part');
    await target.query(`${ledger.partSql(plan, part, snapshot.fingerprint, outcome.rows)}; ${whole ? `${copiedSql(plan)}; ` : ''}commit`);
    return outcome;
  }

  /**
   * TRUNCATE and rewriting ALTER TABLE are not MVCC-safe: a table that was emptied or rewritten since the snapshot looks empty in it (documentation, "Caveats" of MVCC).
   * The lock keeps the table as it is until its rows are read; the savepoint gives the lock back afterwards.
   */
  async #checkTable(source: WireConnection, plan: TablePlan): Promise<void> {
    const name = qualifiedName(plan.schema, plan.name);
    let rows;
    try {
      ({ rows } = await source.query(`savepoint part; lock table only ${name} in access share mode; select pg_catalog.pg_relation_filenode(${plan.oid}::pg_catalog.oid)::text, ${quoteLiteral(name)}::pg_catalog.regclass::pg_catalog.oid::text`));
    } catch (error) {
      if (sqlstateOf(error) === sqlstate.undefinedTable) throw tableChanged(plan, 'is gone', error);
      throw error;
    }
    const [filenode, oid] = rows[0] ?? [];
    if (oid !== String(plan.oid)) throw tableChanged(plan, 'is another table now');
    if (filenode !== String(plan.filenode)) throw new TableRewritten(plan);
  }

  async #openSource(): Promise<WireConnection> {
    if (this.#source && !this.#source.lost) return this.#source;
    const { snapshot, source, job, signal } = this.#options;
    const connection = await WireConnection.open(source, { role: 'copy', job, side: 'the source', signal });
    try {
      await connection.query(`set lc_monetary = 'C'; begin isolation level repeatable read read only; set transaction snapshot ${quoteLiteral(snapshot.id)}`);
    } catch (error) {
      await connection.close();
      if (!signal.aborted && !(await snapshot.alive())) throw new SnapshotLost(error);
      throw error;
    }
    this.#source = connection;
    return connection;
  }

  async #openTarget(): Promise<WireConnection> {
    if (this.#target && !this.#target.lost) return this.#target;
    const { target, job, signal } = this.#options;
    const connection = await WireConnection.open(target, { role: 'copy', job, side: 'the target', signal });
    // An asynchronous commit can be lost with the server's crash, but the ledger's line with it.
    await connection.query(`set lc_monetary = 'C'; set synchronous_commit = off`);
    try {
      await connection.query('set session_replication_role = replica');
    } catch (error) {
      // Without the privilege triggers of tables that were there before would fire; those of a fresh schema are made after the data.
      if (!(error instanceof ServerError) || error.code !== sqlstate.insufficientPrivilege) throw error;
    }
    this.#target = connection;
    return connection;
  }

  /** Brings both connections back to where a part may begin, or drops them. */
  async #recover(): Promise<void> {
    for (const side of ['source', 'target'] as const) {
      const connection = side === 'source' ? this.#source : this.#target;
      if (!connection) continue;
      try {
        // A part that failed before its savepoint was made has none to go back to; the transaction with the snapshot is then aborted, so the connection is given up.
        await connection.query(side === 'source' ? 'rollback to savepoint part; release savepoint part' : 'rollback');
      } catch {
        await connection.close();
        if (side === 'source') this.#source = undefined;
        else this.#target = undefined;
      }
    }
  }
}

/** The exported snapshot is gone with its session: what is not copied yet needs another [hard case 52]. */
export class SnapshotLost extends PgweaveError {
  constructor(cause: unknown) {
    super('snapshot-lost', 'the session that held the snapshot on the source was lost', { retry: 'backoff', cause });
  }
}

/** The table was truncated or rewritten since the snapshot: it can be copied in a newer one only. */
export class TableRewritten extends PgweaveError {
  constructor(table: TableRef) {
    super('table-rewritten', `${displayName(table.schema, table.name)} was truncated or rewritten on the source after the snapshot was taken`, { retry: 'backoff' });
  }
}
