import type { CopyTypeRow } from '../catalog/copy-tables.ts';

/**
 * Object ids below this are assigned by hand in PostgreSQL's sources and are the same on every server and version; initdb assigns those above.
 * Source: src/include/access/transam.h, FirstGenbkiObjectId.
 */
const firstUnstableOid = 10_000;

/** Types whose binary form is an object id of the source's catalogs; their text form is a name. */
const byCatalogId = new Set(['regproc', 'regprocedure', 'regoper', 'regoperator', 'regclass', 'regtype', 'regrole', 'regnamespace', 'regconfig', 'regdictionary', 'regcollation', 'regdatabase']);

/**
 * Type ids whose binary COPY form means the same on another server. Arrays carry the type id of their elements and composites those of their columns, so arrays of
 * user-defined types and all composites go as text; enums travel by label, domains as their base type, ranges as their bounds. Base types of extensions go as text:
 * their binary form is the extension's own affair and may differ between its versions.
 */
export function binarySafeTypes(types: readonly CopyTypeRow[]): Set<number> {
  const byOid = new Map(types.map((type) => [type.oid, type]));
  const known = new Map<number, boolean>();
  const safe = (oid: number): boolean => {
    const before = known.get(oid);
    if (before !== undefined) return before;
    const type = byOid.get(oid);
    // A cycle cannot be: an array's element is no array of it.
    const result = type !== undefined && type.binary && judge(type);
    known.set(oid, result);
    return result;
  };
  const judge = (type: CopyTypeRow): boolean => {
    switch (type.kind) {
      case 'e': return true;
      case 'd': return safe(type.base);
      case 'r':
      case 'm': return safe(type.subtype);
      case 'b':
        if (type.element !== 0) return type.element < firstUnstableOid && safe(type.element);
        return type.oid < firstUnstableOid && !byCatalogId.has(type.name);
      default: return false;
    }
  };
  return new Set(types.filter((type) => safe(type.oid)).map((type) => type.oid));
}
