import { replicatedColumns, type ReplicatedColumnRow } from '../../catalog/replicated-columns.ts';
import type { KeptSelection } from '../../copy/kept-selection.ts';
import { usageError } from '../../core/errors.ts';
import { tableKey, type TableRef } from '../../core/tables.ts';
import { displayName, qualifiedName, quoteIdent } from '../../pg/identifiers.ts';
import type { Session } from '../../pg/session.ts';

/** Why rows could not come back to the source without losing something, and what to do about it. */
export interface WayBackFault {
  readonly text: string;
  readonly fix: string;
}

export interface WayBackTables {
  /** Of the job, by their names on the source. */
  readonly tables: readonly TableRef[];
  readonly kept: KeptSelection;
  /** A native subscription would bring the rows. */
  readonly native: boolean;
}

/**
 * What stands against a way back where the source has columns or rows that the target was never given. Updates from the target leave such columns alone, and new rows get their defaults; that is
 * impossible where a column takes no default, where a table's rows can only be copied as a whole (unlogged tables), and where PostgreSQL's own worker would look for a row by all of its columns.
 */
export async function wayBackFaults(source: Session, target: Session, { tables, kept, native }: WayBackTables): Promise<WayBackFault[]> {
  const columns = async (session: Session, list: readonly TableRef[]) => grouped(await session.query<ReplicatedColumnRow>(replicatedColumns(list.map((t) => t.schema), list.map((t) => t.name))));
  const here = await columns(source, tables);
  const there = await columns(target, tables.map(kept.mapTo));
  return tables.flatMap((table): WayBackFault[] => {
    const all = here.get(tableKey(table)) ?? [];
    const replicated = there.get(tableKey(kept.mapTo(table)));
    if (!replicated) return [];
    const own = all.filter((c) => !c.generated && !replicated.some((r) => r.name === c.name));
    const shown = displayName(table.schema, table.name);
    const alter = `ALTER TABLE ${qualifiedName(table.schema, table.name)}`;
    const required = own.filter((c) => c.required).map((c): WayBackFault => ({
      text: `${shown}.${quoteIdent(c.name)} is NOT NULL without a default, and rows that the target inserts have no value for it`,
      fix: `${alter} ALTER COLUMN ${quoteIdent(c.name)} SET DEFAULT …;   -- on the source; or DROP NOT NULL`,
    }));
    if (!native && all[0]?.unlogged && (own.length > 0 || kept.rowCondition(table) !== undefined)) {
      return [...required, { text: `${shown} is unlogged, so that a return copies it as a whole, and ${own.length > 0 ? `its ${own.map((c) => quoteIdent(c.name)).join(', ')} would be lost` : 'rows that the job leaves out would be lost'}`, fix: `${alter} SET LOGGED;   -- on the source, and so on the target; then: pgweave table ${shown} --copy-again` }];
    }
    if (native && own.length > 0 && replicated[0]?.full) {
      const to = kept.mapTo(table);
      return [...required, { text: `${shown} has REPLICA IDENTITY FULL on the target, by which PostgreSQL finds no row that has more columns (${own.map((c) => quoteIdent(c.name)).join(', ')})`, fix: `ALTER TABLE ${qualifiedName(to.schema, to.name)} REPLICA IDENTITY DEFAULT;   -- on the target, with a primary key` }];
    }
    return required;
  });
}

/** Refuses the way back where {@link wayBackFaults} finds something: before anything is changed. */
export async function refuseLossyWayBack(source: Session, target: Session, tables: WayBackTables): Promise<void> {
  const faults = await wayBackFaults(source, target, tables);
  if (faults.length === 0) return;
  throw usageError(`the way back cannot be kept open: ${faults.map((f) => f.text).join('\n')}`, `${faults.map((f) => f.fix).join('\n')}\nOr leave --reverse out.`);
}

function grouped(rows: readonly ReplicatedColumnRow[]): Map<string, ReplicatedColumnRow[]> {
  const out = new Map<string, ReplicatedColumnRow[]>();
  for (const row of rows) {
    const key = tableKey({ schema: row.schema, name: row.table });
    out.set(key, [...(out.get(key) ?? []), row]);
  }
  return out;
}
