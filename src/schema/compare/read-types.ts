import { commentOf, ofUsers, ownerOf, privilegesOf } from './fragments.ts';
import type { Reader } from './model.ts';

const collationName = (oid: string) => `(select pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname) from pg_catalog.pg_collation co join pg_catalog.pg_namespace cn on cn.oid = co.collnamespace where co.oid = ${oid})`;
const functionName = (oid: string) => `nullif(${oid}::pg_catalog.oid, 0)::pg_catalog.regprocedure::text`;

/** Enums, domains, ranges, composite types, base types, shell types: no row types of tables, no arrays, no multiranges, which come with others. */
export function typeReader(): Reader {
  return {
    sql: `
      select case when not t.typisdefined then 'shell type' when t.typtype = 'e' then 'enum' when t.typtype = 'd' then 'domain' when t.typtype = 'r' then 'range' when t.typtype = 'c' then 'composite type' else 'type' end as kind, n.nspname::text as schema, t.typname::text as name, ${ownerOf('t.typowner')},
             ${privilegesOf('t.typacl', 'T', 't.typowner')}, ${commentOf('t.oid', 'pg_type')},
             case when t.typtype = 'e' then array(select e.enumlabel::text from pg_catalog.pg_enum e where e.enumtypid = t.oid order by e.enumsortorder) end as "labels",
             case when t.typtype = 'd' then pg_catalog.format_type(t.typbasetype, t.typtypmod) end as "base type", case when t.typtype = 'd' then t.typnotnull end as "not null", case when t.typtype = 'd' then pg_catalog.pg_get_expr(t.typdefaultbin, 0) else t.typdefault end as "default",
             case when t.typtype = 'd' and t.typcollation <> bt.typcollation then ${collationName('t.typcollation')} end as "collation",
             case when t.typtype = 'r' then pg_catalog.format_type(r.rngsubtype, null) end as "subtype", case when r.rngcollation <> 0 then ${collationName('r.rngcollation')} end as "range collation", ${functionName('r.rngcanonical')} as "canonical", ${functionName('r.rngsubdiff')} as "subtype difference",
             (select pg_catalog.quote_ident(en.nspname) || '.' || pg_catalog.quote_ident(o.opcname) from pg_catalog.pg_opclass o join pg_catalog.pg_namespace en on en.oid = o.opcnamespace where o.oid = r.rngsubopc) as "operator class", r.rngmultitypid::pg_catalog.regtype::text as "multirange",
             case when t.typtype = 'c' then array(select a.attname::text from pg_catalog.pg_attribute a where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped order by a.attnum) end as "column order",
             case when t.typtype = 'b' then ${functionName('t.typinput')} end as "input", case when t.typtype = 'b' then ${functionName('t.typoutput')} end as "output", case when t.typtype = 'b' then ${functionName('t.typreceive')} end as "receive", case when t.typtype = 'b' then ${functionName('t.typsend')} end as "send",
             case when t.typtype = 'b' then ${functionName('t.typmodin')} end as "modifier input", case when t.typtype = 'b' then ${functionName('t.typanalyze')} end as "analyze", case when t.typtype = 'b' then array[t.typlen::text, t.typbyval::text, t.typalign::text, t.typstorage::text, t.typcategory::text, t.typispreferred::text, t.typdelim::text] end as "storage"
        from pg_catalog.pg_type t join pg_catalog.pg_namespace n on n.oid = t.typnamespace left join pg_catalog.pg_range r on r.rngtypid = t.oid left join pg_catalog.pg_type bt on bt.oid = t.typbasetype
       where t.typtype in ('e', 'd', 'r', 'c', 'b', 'p') and (t.typrelid = 0 or exists (select 1 from pg_catalog.pg_class c where c.oid = t.typrelid and c.relkind = 'c'))
         and not exists (select 1 from pg_catalog.pg_type el where el.oid = t.typelem and el.typarray = t.oid) and ${ofUsers('t.oid', 'pg_type')}`,
  };
}

export function domainConstraintReader(): Reader {
  return {
    kind: 'domain constraint',
    sql: `
      select k.conname::text as name, n.nspname::text as table_schema, t.typname::text as table_name, pg_catalog.pg_get_constraintdef(k.oid) as "constraint", ${commentOf('k.oid', 'pg_constraint')}
        from pg_catalog.pg_constraint k join pg_catalog.pg_type t on t.oid = k.contypid join pg_catalog.pg_namespace n on n.oid = t.typnamespace
       where k.contype = 'c' and ${ofUsers('t.oid', 'pg_type')}`,
  };
}

/** The locale has moved twice: collcollate until 14, colliculocale in 15 and 16, colllocale since 17. */
export function collationReader(version: number): Reader {
  const locale = version >= 170_000 ? 'coalesce(c.colllocale, c.collcollate)' : version >= 150_000 ? 'coalesce(c.colliculocale, c.collcollate)' : 'c.collcollate::text';
  return {
    kind: 'collation',
    sql: `
      select n.nspname::text as schema, c.collname::text as name, ${ownerOf('c.collowner')}, ${commentOf('c.oid', 'pg_collation')}, case c.collprovider when 'i' then 'icu' when 'c' then 'libc' when 'b' then 'builtin' when 'd' then 'default' end as "provider", c.collisdeterministic as "deterministic",
             ${locale} as "locale", case when c.collprovider = 'c' then c.collctype::text end as "character type", ${version >= 160_000 ? 'c.collicurules' : 'null::text'} as "rules"
        from pg_catalog.pg_collation c join pg_catalog.pg_namespace n on n.oid = c.collnamespace where ${ofUsers('c.oid', 'pg_collation')}`,
  };
}
