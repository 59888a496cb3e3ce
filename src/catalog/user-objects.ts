/**
 * Condition that keeps users' schemas: not the system's, not other sessions' temporary ones, not ours. `n` is the alias of pg_namespace.
 */
export function userSchema(n = 'n'): string {
  return `${n}.nspname not in ('pg_catalog', 'information_schema', 'pgweave') and ${n}.nspname !~ '^pg_(toast|temp)'`;
}

/** Condition that leaves out objects that an extension made. `oid` and `classid` are SQL expressions. */
export function notOfExtension(oid: string, catalog: string): string {
  return `not exists (select 1 from pg_catalog.pg_depend dep where dep.classid = 'pg_catalog.${catalog}'::pg_catalog.regclass and dep.objid = ${oid} and dep.deptype = 'e')`;
}
