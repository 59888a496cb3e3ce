import { tableKey, type TableRef } from '../../core/tables.ts';
import type { Rename } from '../renames.ts';
import { objectKey, type CatalogObject } from './model.ts';
import type { SchemaModel } from './read.ts';
import { RenamedNames, splitQualified, unchangedNames } from './renamed-names.ts';

/** Something that a job's rules leave out on the target: relations with all that belongs to them, functions, parts of tables (`orders.orders_check`), indexes, statistics objects. */
export interface LeftOutObject {
  readonly kind: 'relation' | 'function' | 'constraint' | 'policy' | 'trigger' | 'rule' | 'index' | 'statistics';
  readonly schema: string;
  readonly name: string;
}

/** What a job's rules make of the source's schema on the target. */
export interface SchemaRules {
  readonly renames: readonly Rename[];
  /** Columns that the target does not get, by table key. */
  readonly columns: ReadonlyMap<string, readonly string[]>;
  readonly leftOut: readonly LeftOutObject[];
}

/** Two schemas, each keyed by the names that an object has on the target. */
export interface ExpectedSchemas {
  /** What of the source should be on the target; objects have their names of the source. */
  readonly source: SchemaModel;
  /** Without what the rules leave out. */
  readonly target: SchemaModel;
  readonly names: RenamedNames;
}

/**
 * The source's schema as the rules say that the target's must be. What they leave out is compared on neither side, but for columns: one that is there nevertheless is one too many.
 * Schemas that only the new names made necessary are nobody's difference.
 */
export function expectedSchemas(source: SchemaModel, target: SchemaModel, rules: SchemaRules): ExpectedSchemas {
  const gone = new Gone(rules);
  const names = namesOf(source, rules);
  const kept = new Map<string, CatalogObject>();
  const dropped = new Set<string>();
  const there = new Map([...target.values()].map((object) => [keyOf(object, unchangedNames), object]));
  for (const object of source.values()) {
    const expected = gone.without(object);
    const key = keyOf(expected ?? object, names);
    if (gone.column(object)) continue;
    // A sequence that another table uses stays, and stands alone from now on.
    if (expected && !(gone.sequence(object) && !there.has(key))) kept.set(key, expected);
    else dropped.add(key);
  }
  const made = new Set(rules.renames.map(({ to }) => to.schema));
  for (const [key, object] of there) if (dropped.has(key) || (object.kind === 'schema' && made.has(object.name) && !kept.has(key))) there.delete(key);
  return { source: kept, target: there, names };
}

/** Kinds whose names hold names of types. */
const namedByTypes = new Set(['function', 'procedure', 'aggregate', 'operator', 'cast', 'transform']);

/** {@link objectKey} with the names of the target. */
function keyOf(object: CatalogObject, names: RenamedNames): string {
  const { kind, schema, name, table } = object;
  if (kind === 'table' || kind === 'sequence') {
    const to = names.relation({ schema: schema!, name });
    return objectKey({ ...object, schema: to.schema, name: to.name });
  }
  return objectKey({ ...object, name: namedByTypes.has(kind) ? names.inText(name) : name, table: table && names.relation(table) });
}

/** The new names of tables, and of sequences that go along to another schema with the table that owns them. */
function namesOf(source: SchemaModel, rules: SchemaRules): RenamedNames {
  const relations = new Map(rules.renames.map(({ from, to }) => [tableKey(from), to]));
  if (relations.size === 0) return unchangedNames;
  const gone = new Gone(rules);
  for (const object of [...source.values()].filter(({ kind }) => kind === 'sequence')) {
    const owner = gone.sequence(object) ? undefined : ownerOf(object);
    const to = owner && relations.get(tableKey(owner));
    if (to && to.schema !== object.schema) relations.set(tableKey({ schema: object.schema!, name: object.name }), { schema: to.schema, name: object.name });
  }
  return new RenamedNames(relations);
}

function ownerOf(sequence: CatalogObject): (TableRef & { readonly column: string }) | undefined {
  const text = sequence.attributes['owned by'];
  const [schema, name, column] = (typeof text === 'string' ? splitQualified(text) : undefined) ?? [];
  return schema === undefined || name === undefined || column === undefined ? undefined : { schema, name, column };
}

const relations = new Set(['table', 'foreign table', 'view', 'materialized view']);
const constraints = new Set(['check constraint', 'primary key', 'unique constraint', 'foreign key', 'exclusion constraint']);

/** What the rules leave out. */
class Gone {
  readonly #columns: ReadonlyMap<string, readonly string[]>;
  readonly #objects: ReadonlySet<string>;

  constructor(rules: SchemaRules) {
    this.#columns = rules.columns;
    this.#objects = new Set(rules.leftOut.map(({ kind, schema, name }) => `${kind}\0${schema}\0${name}`));
  }

  column({ kind, name, table }: CatalogObject): boolean {
    return kind === 'column' && table !== undefined && this.#columns.get(tableKey(table))?.includes(name) === true;
  }

  /** A sequence whose column or table goes. */
  sequence(object: CatalogObject): boolean {
    const owner = object.kind === 'sequence' ? ownerOf(object) : undefined;
    return owner !== undefined && (this.#columns.get(tableKey(owner))?.includes(owner.column) === true || this.#relation(owner));
  }

  /** The object without what goes with left-out columns; undefined where all of it goes. */
  without(object: CatalogObject): CatalogObject | undefined {
    const { kind, schema = '', name, table, attributes } = object;
    if (this.column(object) || (table && this.#relation(table))) return undefined;
    if (relations.has(kind) && this.#relation({ schema, name })) return undefined;
    if (this.sequence(object)) return { ...object, attributes: { ...attributes, 'owned by': null } };
    if (this.#object(object)) return undefined;
    const columns = kind === 'table' ? this.#columns.get(tableKey({ schema, name })) : undefined;
    const order = attributes['column order'];
    if (!columns || !Array.isArray(order)) return object;
    return { ...object, attributes: { ...attributes, 'column order': (order as readonly string[]).filter((column) => !columns.includes(column)) } };
  }

  #relation(ref: TableRef): boolean {
    return this.#objects.has(`relation\0${ref.schema}\0${ref.name}`);
  }

  #object({ kind, schema = '', name, table }: CatalogObject): boolean {
    const has = (as: LeftOutObject['kind'], of: string, called: string) => this.#objects.has(`${as}\0${of}\0${called}`);
    if (kind === 'function' || kind === 'procedure' || kind === 'aggregate') return has('function', schema, name);
    if (kind === 'statistics') return has(kind, schema, name);
    if (!table) return false;
    if (kind === 'index') return has(kind, table.schema, name);
    if (constraints.has(kind)) return has('constraint', table.schema, `${table.name}.${name}`);
    return (kind === 'policy' || kind === 'trigger' || kind === 'rule') && has(kind, table.schema, `${table.name}.${name}`);
  }
}
