import { tableKey } from '../../core/tables.ts';
import { asMade, sqlForms, type AttributeValue, type CatalogObject } from './model.ts';
import type { SchemaModel } from './read.ts';
import { unchangedNames, type RenamedNames } from './renamed-names.ts';
import { sameSql } from './sql-equal.ts';

export interface AttributeDifference {
  readonly name: string;
  readonly source: AttributeValue;
  readonly target: AttributeValue;
}

export interface SchemaDifference {
  /** `missing`: on the source alone; `extra`: on the target alone. */
  readonly change: 'missing' | 'extra' | 'different';
  /** On the target where it is there alone, else on the source. */
  readonly object: CatalogObject;
  /** Its counterpart; undefined unless `different`. */
  readonly onTarget: CatalogObject | undefined;
  /** Empty unless `different`. */
  readonly attributes: readonly AttributeDifference[];
  /** What went with it: columns, indexes and so on of a table that is missing or extra as a whole. */
  readonly parts: readonly CatalogObject[];
}

export interface SchemaDiff {
  readonly differences: readonly SchemaDifference[];
  /** Differences that versions and installations bring with them and that break nothing: versions of extensions. */
  readonly notes: readonly SchemaDifference[];
}

export interface DiffOptions {
  readonly sourceVersion: number;
  readonly targetVersion: number;
  /** False: owners are not compared. */
  readonly owners?: boolean;
  /** False: privileges are not compared. */
  readonly privileges?: boolean;
  /** False: comments are not compared. */
  readonly comments?: boolean;
  /** Names that the source's objects have on the target, by which the source's schema is keyed (expected.ts). */
  readonly names?: RenamedNames;
}

/** What is only a note where it differs. */
const noted: Readonly<Record<string, readonly string[]>> = { extension: ['version'] };

/** Compares two schemas object by object; those of the same key are each other's counterparts. Call loadParser first. */
export function diffSchemas(source: SchemaModel, target: SchemaModel, options: DiffOptions): SchemaDiff {
  const differences: SchemaDifference[] = [];
  const notes: SchemaDifference[] = [];
  const ignored = (object: CatalogObject) => options.privileges === false && object.kind === 'default privileges';
  for (const [key, object] of source) {
    if (ignored(object)) continue;
    const other = target.get(key);
    if (!other) {
      differences.push({ change: 'missing', object, onTarget: undefined, attributes: [], parts: [] });
      continue;
    }
    const attributes = diffAttributes(object, other, options);
    const asNotes = attributes.filter(({ name }) => noted[object.kind]?.includes(name));
    const real = attributes.filter((attribute) => !asNotes.includes(attribute));
    if (real.length > 0) differences.push({ change: 'different', object, onTarget: other, attributes: real, parts: [] });
    if (asNotes.length > 0) notes.push({ change: 'different', object, onTarget: other, attributes: asNotes, parts: [] });
  }
  for (const [key, object] of target) if (!source.has(key) && !ignored(object)) differences.push({ change: 'extra', object, onTarget: undefined, attributes: [], parts: [] });
  return { differences: fold(differences), notes };
}

function diffAttributes(a: CatalogObject, b: CatalogObject, options: DiffOptions): AttributeDifference[] {
  const out: AttributeDifference[] = [];
  const names = new Set([...Object.keys(a.attributes), ...Object.keys(b.attributes)]);
  const bothAsMade = a.attributes[asMade] === true && b.attributes[asMade] === true;
  for (const name of names) {
    if (name === asMade || (bothAsMade && (name === 'owner' || name === 'privileges'))) continue;
    if (name === 'owner' && options.owners === false) continue;
    if (name === 'privileges' && options.privileges === false) continue;
    if (name === 'comment' && options.comments === false) continue;
    let source = a.attributes[name] ?? null;
    let target = b.attributes[name] ?? null;
    // The name of a NOT NULL constraint is kept since 18.
    if (name === 'not null constraint' && Math.min(options.sourceVersion, options.targetVersion) < 180_000) continue;
    // Privilege MAINTAIN came with 17 and is part of ALL there.
    if (name === 'privileges' && options.sourceVersion >= 170_000 !== options.targetVersion >= 170_000) {
      source = withoutMaintain(source);
      target = withoutMaintain(target);
    }
    if (name === 'locale') {
      source = canonicalLocale(source);
      target = canonicalLocale(target);
    }
    // A column that is missing is a difference of its own, not one of the order too.
    if (name === 'column order' && !sameMembers(source, target)) continue;
    if (!sameValue(name, { object: a, value: source }, { object: b, value: target }, options.names ?? unchangedNames)) out.push({ name, source, target });
  }
  return out;
}

interface Side {
  readonly object: CatalogObject;
  readonly value: AttributeValue;
}

/** Words of people, in which a name is no reference. */
const words = new Set(['comment', 'security labels']);

function sameValue(name: string, source: Side, target: Side, names: RenamedNames): boolean {
  const [a, b] = [source.value, target.value];
  const form = sqlForms[name];
  if (form && typeof a === 'string' && typeof b === 'string') return sameSql(a, b, form, { names, source: source.object.table?.name, target: target.object.table?.name });
  const same = JSON.stringify(a) === JSON.stringify(b);
  // Nobody changes the text of a function for a table's new name; whoever does so by hand makes no difference either.
  if (words.has(name) || (name === 'source' && same)) return same;
  return JSON.stringify(names.inValue(a)) === JSON.stringify(unchangedNames.inValue(b));
}

function withoutMaintain(value: AttributeValue): AttributeValue {
  if (!Array.isArray(value)) return value;
  const rest = (value as readonly AttributeValue[]).filter((line) => !/: MAINTAIN(?: with grant option)?$/.test(String(line))) as readonly string[];
  return rest.length === 0 ? null : rest;
}

/** Since 16 the server writes ICU locales as language tags in their canonical form: `en-u-kn` for `en-u-kn-true`. */
function canonicalLocale(value: AttributeValue): AttributeValue {
  try {
    return typeof value === 'string' ? new Intl.Locale(value).toString() : value;
  } catch {
    return value;
  }
}

function sameMembers(a: AttributeValue, b: AttributeValue): boolean {
  if (!Array.isArray(a) || !Array.isArray(b)) return a === b;
  const members = (list: readonly AttributeValue[]) => JSON.stringify(list.map(String).toSorted((x, y) => (x < y ? -1 : 1)));
  return members(a) === members(b);
}

const containers = new Set(['table', 'view', 'materialized view', 'foreign table', 'composite type', 'domain']);

/** Puts the parts of a table that is missing or extra under it; a key's index is made with the key and is no difference of its own where the key is one. */
function fold(differences: readonly SchemaDifference[]): SchemaDifference[] {
  const place = (object: { readonly schema: string | undefined; readonly name: string }) => tableKey({ schema: object.schema ?? '', name: object.name });
  const whole = new Map<string, CatalogObject[]>();
  for (const { change, object } of differences) if (change !== 'different' && containers.has(object.kind)) whole.set(`${change}\0${place(object)}`, []);
  const keys = new Set(differences.filter(({ object }) => ['primary key', 'unique constraint', 'exclusion constraint'].includes(object.kind)).map(({ change, object }) => `${change}\0${object.table ? tableKey(object.table) : ''}\0${object.name}`));
  const kept = differences.filter(({ change, object }) => {
    const of = object.table && change !== 'different' ? whole.get(`${change}\0${tableKey(object.table)}`) : undefined;
    of?.push(object);
    return !of && !(object.kind === 'index' && object.table && keys.has(`${change}\0${tableKey(object.table)}\0${object.name}`));
  });
  return kept.map((difference) => {
    const parts = containers.has(difference.object.kind) ? whole.get(`${difference.change}\0${place(difference.object)}`) : undefined;
    return parts ? { ...difference, parts } : difference;
  });
}
