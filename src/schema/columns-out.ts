import { columnDependentsOf, type ColumnDependentRow } from '../catalog/column-dependents.ts';
import { tableFromKey } from '../core/tables.ts';
import { displayName, quoteIdent } from '../pg/identifiers.ts';
import type { Session } from '../pg/session.ts';
import type { ColumnsOut, LeftOut } from './plan.ts';
import { relationKey } from './references.ts';
import type { Entry } from './statements.ts';

/** Reads what rests on columns that are left out, in the snapshot that the dump is read in; refuses what {@link columnDependentsOf} refuses. Undefined where no column is left out. */
export async function readColumnsOut(source: Session, excluded: ReadonlyMap<string, readonly string[]>): Promise<ColumnsOut | undefined> {
  if (excluded.size === 0) return undefined;
  const dependents = await columnDependentsOf(source, excluded);
  const generated = new Set(dependents.filter((d) => d.kind === 'generated column').map((d) => `${d.schema}.${d.name}`));
  const columns = Object.fromEntries([...excluded].map(([key, names]) => {
    const { schema, name } = tableFromKey(key);
    // A generated column goes before what it is computed from.
    const first = (column: string) => (generated.has(`${schema}.${name}.${column}`) ? 0 : 1);
    return [key, [...names].sort((a, b) => first(a) - first(b))];
  }));
  return { columns, dependents };
}

/** `; ALTER TABLE … DROP COLUMN …` to stand behind the table's CREATE TABLE, in the same transaction; empty where all its columns stay. */
export function dropColumnsSql(out: ColumnsOut | undefined, key: string): string {
  const names = out?.columns[key];
  if (!names || names.length === 0) return '';
  const { schema, name } = tableFromKey(key);
  // A child by inheritance has lost what its parent lost before it was made.
  return `; alter table only ${quoteIdent(schema)}.${quoteIdent(name)} ${names.map((column) => `drop column if exists ${quoteIdent(column)}`).join(', ')}`;
}

/** What of a dump goes with the columns. */
export class ColumnsGone {
  readonly #out: ColumnsOut;
  readonly #reasons = new Map<string, string>();

  constructor(out: ColumnsOut) {
    this.#out = out;
    for (const d of out.dependents) this.#reasons.set(partKey(d.kind, d.schema, d.name), `uses ${displayName(d.table_schema, d.table_name)}.${d.column}, which is left out`);
  }

  /** Views by relation key, with the reason. */
  views(): [string, string][] {
    return this.#out.dependents.filter((d) => d.kind === 'view').map((d) => [relationKey(d.schema, d.name), this.#reasons.get(partKey(d.kind, d.schema, d.name))!]);
  }

  /** Why a statement goes; undefined where it stays. `inUse`: keys of sequences that tables which stay take values from. */
  whyNot(entry: Entry, inUse: ReadonlySet<string>): string | undefined {
    const { schema = '', name, kind } = entry.object;
    const gone = entry.relation === undefined ? undefined : this.#out.columns[entry.relation];
    if (gone && entry.columns && entry.columns.length > 0 && entry.columns.every((column) => gone.includes(column))) return 'its column is left out';
    if (entry.names) {
      const reason = this.#reasons.get(partKey(entry.names.kind, schema, entry.names.kind === 'index' ? entry.names.name : `${name}.${entry.names.name}`));
      if (reason !== undefined) return reason;
    }
    const what = partKind(kind);
    if (what === undefined) return undefined;
    // A sequence that another table uses stays, and stands alone from now on.
    if (what === 'sequence' && entry.relation !== undefined && inUse.has(entry.relation) && !(entry.tag === 'AlterSeqStmt' && entry.ownedBy !== undefined)) return undefined;
    return this.#reasons.get(partKey(what, schema, name));
  }

  /** Constraints that stand in CREATE TABLE itself and go with the column, for the report. */
  inline(entries: readonly Entry[]): LeftOut[] {
    const known = new Set(entries.map((entry) => `${entry.object.schema}\0${entry.object.name}`));
    return this.#out.dependents.flatMap((d) => (d.kind !== 'constraint' || known.has(`${d.schema}\0${d.name}`) ? [] : [{
      object: { kind: 'check constraint', schema: d.schema, name: d.name }, table: { schema: d.table_schema, name: d.table_name }, reason: this.#reasons.get(partKey(d.kind, d.schema, d.name))!,
    }]));
  }
}

function partKey(kind: string, schema: string, name: string): string {
  return `${kind}\0${schema}\0${name}`;
}

/** `comment on trigger` is about a trigger, `foreign key` a constraint. */
function partKind(kind: string): ColumnDependentRow['kind'] | undefined {
  if (kind.endsWith('event trigger')) return undefined;
  if (/(?:^| )(?:primary key|foreign key|constraint)$/.test(kind)) return 'constraint';
  return (['index', 'policy', 'trigger', 'rule', 'statistics', 'sequence'] as const).find((word) => kind === word || kind.endsWith(` ${word}`));
}
