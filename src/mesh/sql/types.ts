/** Facts about type names as people write them in schema.json or as format_type() prints them. */

/** `numeric(10,2)` → `numeric`, `varchar(20)[]` → `varchar[]`, lower case, blanks single. */
export function baseType(type: string): string {
  return type.toLowerCase().replace(/\([^)]*\)/g, '').replace(/\s+/g, ' ').replace(/ ?\[\d*\]/g, '[]').replace(/^pg_catalog\./, '').trim();
}

const integers = new Set(['smallint', 'int2', 'integer', 'int', 'int4', 'bigint', 'int8']);
const numerics = new Set(['numeric', 'decimal', 'dec']);
const texts = new Set(['text', 'varchar', 'character varying', 'uuid', 'boolean', 'bool', 'json', 'jsonb', 'inet', 'cidr', 'macaddr', 'macaddr8', 'bigint', 'oid']);
const dates = new Set(['date', 'timestamp', 'timestamptz', 'timestamp with time zone', 'timestamp without time zone']);
const times = new Set(['time', 'timetz', 'time with time zone', 'time without time zone']);
const floats = new Set(['real', 'float', 'float4', 'float8', 'double precision']);

/** Whether `value::text` gives what the output function gives. */
export function isPlainText(type: string): boolean {
  const base = baseType(type);
  return integers.has(base) || numerics.has(base) || texts.has(base) || dates.has(base) || times.has(base) || floats.has(base) || base === 'bytea' || base === 'interval';
}

/** Whether counters can be of this type: sums must be exact. */
export function isExactNumber(type: string): boolean {
  const base = baseType(type);
  return integers.has(base) || numerics.has(base);
}

const withoutHash = new Set(['bit', 'bit varying', 'varbit', 'money', 'tsvector', 'tsquery', 'xml', 'json', 'point', 'box', 'path', 'polygon', 'circle', 'line', 'lseg', 'txid_snapshot', 'pg_snapshot']);

/** Whether the type has a hash function; types that are not built in are taken to have one, as enums, domains and citext do. */
export function isHashable(type: string): boolean {
  return !withoutHash.has(baseType(type).replace(/(\[\])+$/, ''));
}

const withoutEquality = new Set(['json', 'xml', 'point', 'box', 'polygon', 'path', 'circle', 'line', 'lseg']);

/** Whether the type can be in a unique key at all. */
export function isComparable(type: string): boolean {
  return !withoutEquality.has(baseType(type).replace(/(\[\])+$/, ''));
}

const serials = new Set(['serial', 'serial4', 'bigserial', 'serial8', 'smallserial', 'serial2']);

export function isSerial(type: string): boolean {
  return serials.has(baseType(type));
}

/**
 * Settings on which the text of these types depends, as SET clauses for a function: a session may have changed them. Sources: PostgreSQL documentation,
 * "Locale and Formatting", and what postgres_fdw and pgoutput set for themselves.
 */
export function pinnedSettings(types: readonly string[]): string[] {
  const pins = new Set<string>();
  for (const type of types) {
    const base = baseType(type);
    if (integers.has(base) || numerics.has(base) || texts.has(base) || times.has(base)) continue;
    if (dates.has(base)) pins.add(`datestyle = 'ISO, YMD'`);
    else if (floats.has(base)) pins.add('extra_float_digits = 1');
    else if (base === 'bytea') pins.add(`bytea_output = 'hex'`);
    else if (base === 'interval') pins.add(`intervalstyle = 'postgres'`);
    else for (const pin of [`datestyle = 'ISO, YMD'`, `intervalstyle = 'postgres'`, 'extra_float_digits = 1', `bytea_output = 'hex'`, `xmloption = 'content'`, `lc_monetary = 'C'`]) pins.add(pin);
  }
  return [...pins].sort();
}

const zoned = new Set(['timestamptz', 'timestamp with time zone', 'timetz', 'time with time zone', 'tstzrange', 'tstzmultirange']);

/** Whether the text of the type's values depends on TimeZone; arrays and types that are not built in may hold one that does. */
export function dependsOnTimeZone(type: string): boolean {
  const base = baseType(type);
  return zoned.has(base) || !builtIns.has(base);
}

// Not regclass and its like: their text depends on the search_path, so functions get one that is the same everywhere.
const otherBuiltIns = ['"char"', 'char', 'character', 'bpchar', 'name', 'bytea', 'interval', 'money', 'bit', 'bit varying', 'varbit', 'tsvector', 'tsquery', 'xml', 'point', 'box', 'path', 'polygon', 'circle', 'line', 'lseg', 'int4range', 'int8range',
  'numrange', 'tsrange', 'tstzrange', 'daterange', 'int4multirange', 'int8multirange', 'nummultirange', 'tsmultirange', 'tstzmultirange', 'datemultirange', 'pg_lsn', 'xid8', 'jsonpath'];
const builtIns = new Set([...integers, ...numerics, ...texts, ...dates, ...times, ...floats, ...otherBuiltIns]);

/** Schemas to search for the operators of these types, as a search_path; `pg_temp` last, so that nobody's temporary type comes first. */
export function searchPath(types: readonly string[]): string {
  const schemas = new Set<string>();
  for (const type of types) {
    const base = baseType(type).replace(/(\[\])+$/, '');
    if (builtIns.has(base)) continue;
    const qualified = /^("(?:[^"]|"")+"|[a-z_][\w$]*)\./i.exec(type.trim());
    schemas.add(qualified ? qualified[1]! : 'public');
  }
  return ['pg_catalog', ...[...schemas].sort(), 'pg_temp'].join(', ');
}
