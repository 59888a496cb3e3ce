import { ensurePgweaveTables } from '../catalog/pgweave-schema.ts';
import { tableKey, type TableRef } from '../core/tables.ts';
import { quoteLiteral } from '../pg/identifiers.ts';
import type { Session } from '../pg/session.ts';
import type { TablePlan } from './table-plan.ts';
import type { TablePart } from './parts.ts';

/**
 * - `copy_part`: one line a part that is in, written in the transaction that holds its rows. `snapshot` is the source's `pg_current_snapshot()`: two snapshots with the
 *   same text show the same rows, since no transaction was given an id in between.
 * - `copy_step`: other steps of a copy that are done and need not be done again, such as a batch of large objects.
 */
const statements: readonly string[] = [
  `create table if not exists pgweave.copy_part (
     job text not null, schema_name text not null, table_name text not null, part integer not null, from_block pg_catalog.int8, to_block pg_catalog.int8,
     snapshot text not null, row_count pg_catalog.int8 not null, done_at pg_catalog.timestamptz not null default pg_catalog.clock_timestamp(),
     primary key (job, schema_name, table_name, part))`,
  `create table if not exists pgweave.copy_step (
     job text not null, step text not null, note text, done_at pg_catalog.timestamptz not null default pg_catalog.clock_timestamp(), primary key (job, step))`,
];

interface DonePart {
  readonly from: string | null;
  readonly to: string | null;
  readonly snapshot: string;
}

/** What of a job's copy is on the target. Kept in memory too; every line is written in the same transaction as what it speaks of. */
export class CopyLedger {
  readonly job: string;
  readonly #parts: Map<string, Map<number, DonePart>>;
  readonly #steps: Map<string, string | null>;

  private constructor(job: string, parts: Map<string, Map<number, DonePart>>, steps: Map<string, string | null>) {
    this.job = job;
    this.#parts = parts;
    this.#steps = steps;
  }

  /** Makes the tables where they are missing and reads what earlier runs did. */
  static async open(session: Session, job: string): Promise<CopyLedger> {
    await ensurePgweaveTables(session, 'copy', 1, statements);
    const parts = new Map<string, Map<number, DonePart>>();
    const rows = await session.query<{ schema_name: string; table_name: string; part: number; from: string | null; to: string | null; snapshot: string }>(
      'select schema_name, table_name, part, from_block::text as from, to_block::text as to, snapshot from pgweave.copy_part where job = $1', [job],
    );
    for (const row of rows) {
      const key = tableKey({ schema: row.schema_name, name: row.table_name });
      const of = parts.get(key) ?? new Map<number, DonePart>();
      parts.set(key, of.set(row.part, { from: row.from, to: row.to, snapshot: row.snapshot }));
    }
    const steps = await session.query<{ step: string; note: string | null }>('select step, note from pgweave.copy_step where job = $1', [job]);
    return new CopyLedger(job, parts, new Map(steps.map((s) => [s.step, s.note])));
  }

  /** Parts of this plan that are in, of this very snapshot. Empty where another snapshot or other bounds were used: then the table begins anew. */
  doneParts(plan: TablePlan, snapshot: string): ReadonlySet<number> {
    const done = this.#parts.get(tableKey(plan));
    if (!done) return new Set();
    for (const [number, part] of done) {
      const planned = plan.parts[number - 1];
      if (!planned || part.snapshot !== snapshot || part.from !== blockText(planned.fromBlock) || part.to !== blockText(planned.toBlock)) return new Set();
    }
    return new Set(done.keys());
  }

  /** The line for a part, for the transaction that holds its rows. */
  partSql(table: TableRef, part: TablePart, snapshot: string, rows: number): string {
    const bound = (block: number | undefined) => (block === undefined ? 'null' : String(block));
    return `insert into pgweave.copy_part (job, schema_name, table_name, part, from_block, to_block, snapshot, row_count) values (${quoteLiteral(this.job)}, ${quoteLiteral(table.schema)}, ${quoteLiteral(table.name)}, ${part.number}, ${bound(part.fromBlock)}, ${bound(part.toBlock)}, ${quoteLiteral(snapshot)}, ${rows}) on conflict (job, schema_name, table_name, part) do update set from_block = excluded.from_block, to_block = excluded.to_block, snapshot = excluded.snapshot, row_count = excluded.row_count, done_at = excluded.done_at`;
  }

  /** Forgets a table's parts, for the transaction that empties the table. */
  forgetPartsSql(table: TableRef): string {
    return `delete from pgweave.copy_part where ${this.#where(table)}`;
  }

  /** Asks the target whether a part is in: after a connection was lost during COMMIT nobody else knows. */
  partDoneSql(table: TableRef, part: TablePart, snapshot: string): string {
    return `select row_count::text from pgweave.copy_part where ${this.#where(table)} and part = ${part.number} and snapshot = ${quoteLiteral(snapshot)}`;
  }

  hasStep(step: string): boolean {
    return this.#steps.has(step);
  }

  /** The note of a step that is done. */
  stepNote(step: string): string | null | undefined {
    return this.#steps.get(step);
  }

  /** Writes a step on a session, inside the caller's transaction where there is one. */
  async markStep(session: Session, step: string, note?: string): Promise<void> {
    await session.query('insert into pgweave.copy_step (job, step, note) values ($1, $2, $3) on conflict (job, step) do update set note = excluded.note', [this.job, step, note ?? null]);
    this.#steps.set(step, note ?? null);
  }

  #where(table: TableRef): string {
    return `job = ${quoteLiteral(this.job)} and schema_name = ${quoteLiteral(table.schema)} and table_name = ${quoteLiteral(table.name)}`;
  }
}

/** Forgets all of a job's copy. */
export async function forgetCopy(session: Session, job: string): Promise<void> {
  await session.query('delete from pgweave.copy_part where job = $1', [job]);
  await session.query('delete from pgweave.copy_step where job = $1', [job]);
}

function blockText(block: number | undefined): string | null {
  return block === undefined ? null : String(block);
}
