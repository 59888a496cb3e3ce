import { z } from 'zod';
import { byteLength, maxNameBytes } from './names.ts';
import { faultsOf, formatPath, inputError, readInputFile, type InputFault } from './read-file.ts';
import { isComparable, isExactNumber, isSerial } from './sql/types.ts';

const name = z.string({ error: 'must be a string' }).min(1, 'must not be empty').refine((n) => byteLength(n) <= maxNameBytes, { error: (issue) => `"${String(issue.input).slice(0, 30)}…" is ${byteLength(String(issue.input))} bytes long; PostgreSQL cuts names after 63` })
  .refine((n) => !n.includes('\0'), 'holds a NUL byte').refine((n) => !n.includes('$mesh$'), 'holds $mesh$, with which functions are quoted');
const columnList = z.array(name, { error: 'must be a list of column names; partial, expression, deferrable and NULLS NOT DISTINCT keys cannot be kept across nodes' }).min(1, 'names no column');
const columnSchema = z.strictObject({ name: name.optional(), data_type: z.string({ error: 'must be a string' }).min(1, 'must not be empty'), default: z.string({ error: 'must be SQL in a string' }).optional(), not_null: z.boolean().optional(), generated: z.string().optional() });
const foreignKeySchema = z.strictObject({
  columns: columnList,
  references: z.strictObject({ table: z.union([name, z.array(name).length(1, 'names one table')], { error: 'must be a table name' }), columns: columnList }),
  on_delete: z.enum(['no action', 'restrict', 'cascade', 'set null', 'set default'], { error: 'must be no action, restrict, cascade, set null or set default' }).optional(),
});
const tableSchema = z.strictObject({
  name: name.optional(),
  schema: name.optional(),
  columns: z.record(z.string(), columnSchema, { error: 'must be an object of columns' }),
  constraints: z.strictObject({ primary: columnList, unique: z.array(columnList, { error: 'must be a list of lists of columns' }).nullish(), foreign_keys: z.array(foreignKeySchema).nullish(), checks: z.array(z.string().min(1)).nullish() }, { error: 'must be an object with at least "primary"' }),
  // Programs that write the file out of their own structures leave null for a list that is empty.
  indexes: z.array(columnList, { error: 'must be a list of lists of columns' }).nullish(),
  crdt: z.strictObject({ enabled: z.boolean().optional(), columns: z.record(z.string(), z.strictObject({ type: z.enum(['lww_field', 'pn_counter'], { error: 'must be lww_field or pn_counter' }) })).optional() }).optional(),
});
const schemaSchema = z.record(z.string(), tableSchema, { error: 'must be an object of tables' });

/** What schema.json may hold. */
export type SchemaInput = z.input<typeof schemaSchema>;

export interface ForeignKey {
  readonly columns: readonly string[];
  /** The key of the referenced table in the file. */
  readonly table: string;
  readonly references: readonly string[];
  readonly onDelete: string | undefined;
}

export interface InputColumn {
  readonly name: string;
  readonly type: string;
  readonly default: string | undefined;
  readonly notNull: boolean;
  readonly generated: string | undefined;
  readonly counter: boolean;
}

/** A table of schema.json, checked, in the order in which it can be created. */
export interface InputTable {
  /** The key in the file, which foreign keys name. */
  readonly id: string;
  readonly schema: string;
  readonly name: string;
  readonly columns: readonly InputColumn[];
  readonly primary: readonly string[];
  readonly uniques: readonly (readonly string[])[];
  readonly foreignKeys: readonly ForeignKey[];
  readonly checks: readonly string[];
  readonly indexes: readonly (readonly string[])[];
  readonly byColumn: boolean;
}

const reserved = new Set(['_mesh_w', '_mesh_m', '_mesh_kind', '_mesh_d', '_mesh_o', '_mesh_ox', '_mesh_why']);
const kept = new Set(['updated_at', 'origin_node']);

/** Checks the content of schema.json. Throws with the path of every fault. Tables come back in dependency order; serial keys are uuid. */
export function parseSchema(input: unknown, options: { readonly source?: string } = {}): InputTable[] {
  const source = options.source ?? 'schema';
  const parsed = schemaSchema.safeParse(input);
  if (!parsed.success) throw inputError(source, faultsOf(parsed.error));
  const faults: InputFault[] = [];
  const fault = (path: string, message: string) => void faults.push({ path, message });
  if (Object.keys(parsed.data).length === 0) fault('', 'holds no table');
  const tables: InputTable[] = [];
  const places = new Map<string, string>();
  for (const [id, table] of Object.entries(parsed.data)) {
    const schema = table.schema ?? 'public';
    const tableName = table.name ?? id;
    const named = name.safeParse(tableName);
    if (!named.success) faults.push(...named.error.issues.map((i) => ({ path: formatPath([id]), message: i.message })));
    if (schema === '_mesh' || schema.startsWith('pg_')) fault(`${id}.schema`, `"${schema}" is not for tables of users`);
    const place = JSON.stringify([schema, tableName]);
    if (places.has(place)) fault(`${id}.name`, `table ${schema}.${tableName} is defined as "${places.get(place)}" too`);
    places.set(place, id);
    const columns: InputColumn[] = [];
    for (const [key, column] of Object.entries(table.columns)) {
      const columnName = column.name ?? key;
      const path = `${id}.columns.${key}`;
      if (byteLength(columnName) > maxNameBytes) fault(path, `the name is longer than ${maxNameBytes} bytes`);
      if (columnName.includes('\0') || columnName.includes('$mesh$')) fault(path, 'the name holds a NUL byte or $mesh$');
      if (reserved.has(columnName)) fault(path, `the name "${columnName}" is the mesh's own`);
      // The mesh adds these two to every table; naming them in the file is no fault.
      if (kept.has(columnName)) continue;
      if (columns.some((c) => c.name === columnName)) fault(path, `column "${columnName}" is defined twice`);
      if (/;|--|\/\*/.test(column.data_type)) fault(`${path}.data_type`, `"${column.data_type}" is not a type`);
      if (column.generated !== undefined && column.default !== undefined) fault(path, 'has a default and is generated');
      columns.push({ name: columnName, type: column.data_type.trim(), default: column.default, notNull: column.not_null ?? false, generated: column.generated, counter: table.crdt?.columns?.[columnName]?.type === 'pn_counter' });
    }
    const has = (path: string, column: string) => {
      const found = columns.find((c) => c.name === column);
      if (!found) fault(path, kept.has(column) ? `"${column}" is kept by the mesh and cannot be part of a key` : `there is no column "${column}" in table ${id}`);
      return found;
    };
    const { primary } = table.constraints;
    const [unique, foreignKeys, checks] = [table.constraints.unique ?? [], table.constraints.foreign_keys ?? [], table.constraints.checks ?? []];
    const keyPaths: [string, readonly string[]][] = [[`${id}.constraints.primary`, primary], ...unique.map((u, i): [string, readonly string[]] => [`${id}.constraints.unique[${i}]`, u])];
    for (const [path, key] of keyPaths) {
      if (new Set(key).size !== key.length) fault(path, 'names a column twice');
      key.forEach((c, i) => {
        const column = has(`${path}[${i}]`, c);
        if (column && !isComparable(column.type)) fault(`${path}[${i}]`, `columns of type ${column.type} cannot be unique`);
        if (column?.generated !== undefined) fault(`${path}[${i}]`, `the generated column "${c}" cannot be part of a key`);
        if (column?.counter) fault(`${path}[${i}]`, `the counter "${c}" cannot be part of a key: its sum is known only after the merge`);
        if (column && isSerial(column.type) && path !== `${id}.constraints.primary`) fault(`${path}[${i}]`, `serial column "${c}" would collide between nodes; make it uuid`);
      });
    }
    (table.indexes ?? []).forEach((index, i) => index.forEach((c, k) => kept.has(c) || has(`${id}.indexes[${i}][${k}]`, c)));
    for (const [c, crdt] of Object.entries(table.crdt?.columns ?? {})) {
      const path = `${id}.crdt.columns.${c}`;
      const column = has(path, c);
      if (column && crdt.type === 'pn_counter' && !isExactNumber(column.type)) fault(`${path}.type`, `a counter must be smallint, integer, bigint or numeric; "${c}" is ${column.type}`);
      if (primary.includes(c)) fault(path, `"${c}" is part of the primary key, which is never merged`);
    }
    tables.push({
      id, schema, name: tableName, columns, primary, uniques: unique, checks, indexes: table.indexes ?? [], byColumn: Object.keys(table.crdt?.columns ?? {}).length > 0 && table.crdt?.enabled !== false,
      foreignKeys: foreignKeys.map((f) => ({ columns: f.columns, table: typeof f.references.table === 'string' ? f.references.table : f.references.table[0]!, references: f.references.columns, onDelete: f.on_delete })),
    });
  }
  checkForeignKeys(tables, fault);
  const ordered = inDependencyOrder(tables, fault);
  if (faults.length > 0) throw inputError(source, faults);
  return serialsToUuid(ordered);
}

export function readSchema(path: string): InputTable[] {
  return parseSchema(readInputFile(path), { source: path });
}

function checkForeignKeys(tables: readonly InputTable[], fault: (path: string, message: string) => void): void {
  for (const table of tables) {
    table.foreignKeys.forEach((key, i) => {
      const path = `${table.id}.constraints.foreign_keys[${i}]`;
      key.columns.forEach((c, k) => {
        if (!table.columns.some((x) => x.name === c)) fault(`${path}.columns[${k}]`, `there is no column "${c}" in table ${table.id}`);
      });
      const target = tables.find((t) => t.id === key.table);
      if (!target) return fault(`${path}.references.table`, `there is no table "${key.table}"`);
      if (key.columns.length !== key.references.length) return fault(path, `${key.columns.length} columns refer to ${key.references.length}`);
      key.references.forEach((c, k) => {
        if (!target.columns.some((x) => x.name === c)) fault(`${path}.references.columns[${k}]`, `there is no column "${c}" in table ${target.id}`);
      });
      const same = (a: readonly string[]) => a.length === key.references.length && a.every((c) => key.references.includes(c));
      if (!same(target.primary) && !target.uniques.some(same)) fault(`${path}.references.columns`, `(${key.references.join(', ')}) is not a key of table ${target.id}`);
    });
  }
}

/** Referenced tables first, otherwise the file's order. A table may refer to itself; cycles are named. */
function inDependencyOrder(tables: readonly InputTable[], fault: (path: string, message: string) => void): InputTable[] {
  const done = new Set<string>();
  const out: InputTable[] = [];
  const visit = (table: InputTable, trail: readonly string[]): void => {
    if (done.has(table.id)) return;
    if (trail.includes(table.id)) {
      fault(`${table.id}.constraints.foreign_keys`, `the foreign keys go in a circle: ${[...trail.slice(trail.indexOf(table.id)), table.id].join(' → ')}`);
      return;
    }
    for (const key of table.foreignKeys) {
      const target = tables.find((t) => t.id === key.table);
      if (target && target.id !== table.id) visit(target, [...trail, table.id]);
    }
    if (done.has(table.id)) return;
    done.add(table.id);
    out.push(table);
  };
  for (const table of tables) visit(table, []);
  return out;
}

/** Two nodes would give out the same serial number: serial keys become uuid, and so does every foreign key into them, through any number of tables. */
function serialsToUuid(tables: readonly InputTable[]): InputTable[] {
  const uuid = new Set<string>();
  const id = (table: string, column: string) => JSON.stringify([table, column]);
  for (const t of tables) for (const c of t.columns) if (t.primary.includes(c.name) && isSerial(c.type)) uuid.add(id(t.id, c.name));
  const born = new Set(uuid);
  for (let before = -1; before !== uuid.size; ) {
    before = uuid.size;
    for (const t of tables) for (const f of t.foreignKeys) f.columns.forEach((c, i) => uuid.has(id(f.table, f.references[i]!)) && uuid.add(id(t.id, c)));
  }
  return tables.map((t) => ({
    ...t,
    columns: t.columns.map((c) => {
      if (!uuid.has(id(t.id, c.name))) return c;
      const isForeign = t.foreignKeys.some((f) => f.columns.some((x, i) => x === c.name && uuid.has(id(f.table, f.references[i]!))));
      return { ...c, type: 'uuid', default: born.has(id(t.id, c.name)) && !isForeign ? 'gen_random_uuid()' : undefined };
    }),
  }));
}
