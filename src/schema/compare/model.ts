import type { TableRef } from '../../core/tables.ts';

/** Scalars and lists as the catalog gave them; null where there is nothing. */
export type AttributeValue = string | number | boolean | null | readonly (string | number | boolean | null)[];

/** One object of a schema, as the catalogs describe it. */
export interface CatalogObject {
  /** In SQL's words: `table`, `column`, `foreign key`, `operator class`. */
  readonly kind: string;
  readonly schema: string | undefined;
  /** Unique among objects of its kind in its schema (of its table, where it has one): with argument types for functions. */
  readonly name: string;
  /** The table, view or type that it is part of: of columns, constraints, indexes, triggers, rules, policies. */
  readonly table: TableRef | undefined;
  readonly attributes: Readonly<Record<string, AttributeValue>>;
}

/** What an attribute's text is, so that two spellings of the same can be told from two things (sql-equal.ts). */
export type SqlForm = 'query' | 'statement' | 'expression' | 'constraint' | 'bound' | 'arguments' | 'body';

/** A query on the catalogs for the objects of one or more kinds. Columns `kind`, `schema`, `name`, `table_schema`, `table_name` are the identity, all others attributes. */
export interface Reader {
  /** Default: a column `kind` tells. */
  readonly kind?: string;
  readonly sql: string;
}

/** How the attributes that hold SQL are to be read. Attributes of the same name have the same form in every kind. */
export const sqlForms: Readonly<Record<string, SqlForm>> = {
  'query': 'query', 'definition': 'statement', 'constraint': 'constraint', 'default': 'expression', 'using': 'expression', 'with check': 'expression', 'generated as': 'expression', 'partition bound': 'bound', 'arguments': 'arguments', 'body': 'body',
};

export function objectKey(object: CatalogObject): string {
  return [object.kind, object.schema ?? '', object.table ? `${object.table.schema}\0${object.table.name}` : '', object.name].join('\0');
}

/** An attribute that tells whether the object is as initdb of its version makes it; no difference by itself. */
export const asMade = 'as initdb makes it';
