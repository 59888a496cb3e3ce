import { notOfExtension, userSchema } from '../../catalog/user-objects.ts';

/** Objects of users: not of the system's schemas, not of ours, not of an extension. `n` is the alias of pg_namespace. */
export function ofUsers(oid: string, catalog: string): string {
  return `${userSchema()} and ${notOfExtension(oid, catalog)}`;
}

/** For catalogs without schemas: what initdb made has an oid below 16384 (FirstNormalObjectId). */
export function notBuiltIn(oid: string, catalog: string): string {
  return `${oid} >= 16384 and ${notOfExtension(oid, catalog)}`;
}

export function commentOf(oid: string, catalog: string): string {
  return `pg_catalog.obj_description(${oid}, '${catalog}') as "comment", ${labelsOf(oid, catalog)} as "security labels"`;
}

export function labelsOf(oid: string, catalog: string, column = '0'): string {
  return `(select pg_catalog.array_agg(lab.provider || ': ' || lab.label order by lab.provider) from pg_catalog.pg_seclabel lab where lab.objoid = ${oid} and lab.classoid = 'pg_catalog.${catalog}'::pg_catalog.regclass and lab.objsubid = ${column})`;
}

export function ownerOf(owner: string): string {
  return `pg_catalog.pg_get_userbyid(${owner})::text as "owner"`;
}

/**
 * Privileges as sorted lines `role: SELECT`. A missing list means the built-in default, which is written out, so that both spellings of the default are one. The owner is
 * called (owner): who that is, is an attribute of its own.
 */
export function privilegesOf(acl: string, type: string, owner: string): string {
  return `array(select distinct case when a.grantee = ${owner} then '(owner)' when a.grantee = 0 then 'public' else coalesce(g.rolname::text, a.grantee::text) end || ': ' || a.privilege_type || case when a.is_grantable and a.grantee <> ${owner} then ' with grant option' else '' end
            from pg_catalog.aclexplode(coalesce(${acl}, pg_catalog.acldefault('${type}', ${owner}))) a left join pg_catalog.pg_roles g on g.oid = a.grantee order by 1) as "privileges"`;
}

/** A sorted copy of an array of text: the order of storage options and the like means nothing. */
export function sorted(array: string): string {
  return `(select pg_catalog.array_agg(x order by x collate "C") from pg_catalog.unnest(${array}) x)`;
}

/** A statistics target: -1 until 16, null since 17, means the default. */
export function statisticsTarget(column: string): string {
  return `nullif(${column}, -1) as "statistics target"`;
}
