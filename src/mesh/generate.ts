import { writeFileSync } from 'node:fs';
import { displayName, quoteIdent, qualifiedName } from '../pg/identifiers.ts';
import { shortDigest } from './names.ts';
import { readSchema, type InputColumn, type InputTable } from './schema-input.ts';
import { coreSql, grantsSql } from './sql/core.ts';
import { meshTableSql } from './sql/table.ts';
import { factsOf, type PlanColumn, type TablePlan } from './table-plan.ts';

export interface GenerateOptions {
  /** A change stamped further ahead of the receiver's clock than this is refused, in milliseconds. Default one minute. */
  readonly maxDriftMs?: number;
}

export const defaultMaxDriftMs = 60_000;

/** How a table of schema.json takes part in the mesh. */
export function planOf(table: InputTable): TablePlan {
  const columns = table.columns.map((c): PlanColumn => ({ name: c.name, type: c.type, generated: c.generated !== undefined, merge: table.primary.includes(c.name) ? 'key' : c.counter && table.byColumn ? 'counter' : table.byColumn ? 'lww' : 'row' }));
  const audit: PlanColumn[] = [{ name: 'updated_at', type: 'timestamptz', merge: 'row', generated: false }, { name: 'origin_node', type: 'text', merge: 'row', generated: false }];
  return { schema: table.schema, name: table.name, columns: [...columns, ...audit], key: table.primary, uniques: table.uniques, mode: table.byColumn ? 'column' : 'row', checks: table.checks.length > 0, audit: true };
}

/**
 * The text of generated.sql for tables in dependency order: the same input gives the same text. It serves every node; which one it is comes from the
 * settings `pgweave.node_id` and `pgweave.node_name`.
 */
export function generateSql(tables: readonly InputTable[], options: GenerateOptions = {}): string {
  const plans = tables.map(planOf);
  const schemas = [...new Set(tables.map((t) => t.schema).filter((s) => s !== 'public'))].sort();
  const parts = [
    `-- A mesh of PostgreSQL nodes that all accept writes. Written by: pgweave mesh generate
-- Apply it to every node with: pgweave mesh apply-schema      (one transaction a node)
-- Every local change is one line of _mesh.journal, which alone is replicated; triggers merge the lines of other nodes. See docs/mesh.md.
-- Tables: ${tables.map((t) => displayName(t.schema, t.name).replace(/[\r\n]/g, ' ')).join(', ')}`,
    ...(schemas.length > 0 ? [schemas.map((s) => `create schema if not exists ${quoteIdent(s)};`).join('\n')] : []),
    coreSql({ maxDriftMs: options.maxDriftMs ?? defaultMaxDriftMs }),
    ...tables.map((t) => tableSql(t, tables)),
    ...plans.map(meshTableSql),
    grantsSql(),
  ];
  return `${parts.join('\n\n')}\n`;
}

/** Reads schema.json and writes generated.sql. Returns the tables in dependency order. */
export function generateSqlFile(tablesPath: string, outputPath: string, options: GenerateOptions = {}): InputTable[] {
  const tables = readSchema(tablesPath);
  writeFileSync(outputPath, generateSql(tables, options));
  return tables;
}

function columnSql(column: InputColumn, table: InputTable): string {
  const notNull = column.notNull || column.counter ? ' not null' : '';
  const value = column.generated !== undefined ? ` generated always as (${column.generated}) stored` : column.default !== undefined ? ` default ${column.default}` : column.counter && table.byColumn ? ' default 0' : '';
  return `${quoteIdent(column.name)} ${column.type}${value}${notNull}`;
}

function tableSql(table: InputTable, tables: readonly InputTable[]): string {
  const list = (names: readonly string[]) => names.map(quoteIdent).join(', ');
  const lines = [
    ...table.columns.map((c) => columnSql(c, table)),
    'updated_at timestamptz not null default now()',
    'origin_node text',
    `primary key (${list(table.primary)})`,
    ...table.uniques.map((u) => `unique (${list(u)})`),
    ...table.checks.map((c) => `check (${c})`),
    ...table.foreignKeys.map((f) => {
      const target = tables.find((t) => t.id === f.table)!;
      return `foreign key (${list(f.columns)}) references ${qualifiedName(target.schema, target.name)} (${list(f.references)})${f.onDelete ? ` on delete ${f.onDelete}` : ''}`;
    }),
  ];
  const name = qualifiedName(table.schema, table.name);
  const { base } = factsOf(planOf(table));
  const indexes = table.indexes.map((columns, i) => `create index ${quoteIdent(`${base.slice(0, 44)}_${shortDigest(JSON.stringify([table.id, columns, i]))}_idx`)} on ${name} (${list(columns)});`);
  return [`create table ${name} (\n${lines.map((l) => `  ${l}`).join(',\n')}\n);`, ...indexes].join('\n');
}
