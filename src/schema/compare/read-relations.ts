import { notOfExtension } from '../../catalog/user-objects.ts';
import { commentOf, labelsOf, ofUsers, ownerOf, privilegesOf, sorted, statisticsTarget } from './fragments.ts';
import type { Reader } from './model.ts';

const relationKind = `case c.relkind when 'r' then 'table' when 'p' then 'table' when 'v' then 'view' when 'm' then 'materialized view' when 'f' then 'foreign table' when 'S' then 'sequence' when 'c' then 'composite type' end`;
const qualified = (alias: string) => `(select pg_catalog.quote_ident(qn.nspname) || '.' || pg_catalog.quote_ident(qc.relname) from pg_catalog.pg_class qc join pg_catalog.pg_namespace qn on qn.oid = qc.relnamespace where qc.oid = ${alias})`;
const replicaIdentity = `case c.relreplident when 'd' then 'default' when 'n' then 'nothing' when 'f' then 'full' else 'index ' || (select x.relname from pg_catalog.pg_index i join pg_catalog.pg_class x on x.oid = i.indexrelid where i.indrelid = c.oid and i.indisreplident) end`;

/** Tables, partitioned tables, foreign tables, views, materialized views: all but their columns. */
export function relationReader(): Reader {
  return {
    sql: `
      select ${relationKind} as kind, n.nspname::text as schema, c.relname::text as name, ${ownerOf('c.relowner')}, ${privilegesOf('c.relacl', 'r', 'c.relowner')}, ${commentOf('c.oid', 'pg_class')},
             case c.relpersistence when 'u' then 'unlogged' else 'permanent' end as "persistence", ${sorted('c.reloptions')} as "options", ${sorted('t.reloptions')} as "toast options",
             (select am.amname::text from pg_catalog.pg_am am where am.oid = c.relam and c.relkind in ('r', 'm')) as "access method",
             case when c.relkind in ('r', 'p') then ${replicaIdentity} end as "replica identity", c.relrowsecurity as "row security", c.relforcerowsecurity as "row security forced",
             pg_catalog.pg_get_partkeydef(c.oid) as "partition key", pg_catalog.pg_get_expr(c.relpartbound, c.oid) as "partition bound",
             (select pg_catalog.array_agg(${qualified('h.inhparent')} order by h.inhseqno) from pg_catalog.pg_inherits h where h.inhrelid = c.oid) as "parents",
             nullif(c.reloftype, 0)::pg_catalog.regtype::text as "of type", case when c.relkind in ('v', 'm') then pg_catalog.pg_get_viewdef(c.oid) end as "query", case when c.relkind = 'm' then c.relispopulated end as "populated",
             array(select a.attname::text from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by a.attnum) as "column order",
             s.srvname::text as "server", ${sorted('f.ftoptions')} as "foreign options"
        from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        left join pg_catalog.pg_class t on t.oid = c.reltoastrelid left join pg_catalog.pg_foreign_table f on f.ftrelid = c.oid left join pg_catalog.pg_foreign_server s on s.oid = f.ftserver
       where c.relkind in ('r', 'p', 'v', 'm', 'f') and c.relpersistence <> 't' and ${ofUsers('c.oid', 'pg_class')}`,
  };
}

/** Columns of relations and attributes of composite types. The name that a NOT NULL constraint has counts where the server keeps it (18). */
export function columnReader(version: number): Reader {
  const notNull = version >= 180_000
    ? `(select case when k.convalidated then '' else 'not valid ' end || case when k.connoinherit then 'no inherit ' else '' end || k.conname from pg_catalog.pg_constraint k where k.conrelid = c.oid and k.contype = 'n' and k.conkey = array[a.attnum])`
    : 'null::text';
  return {
    sql: `
      select case c.relkind when 'c' then 'attribute' else 'column' end as kind, a.attname::text as name, n.nspname::text as table_schema, c.relname::text as table_name,
             pg_catalog.format_type(a.atttypid, a.atttypmod) as "type", a.attnotnull as "not null", ${notNull} as "not null constraint",
             case when a.attgenerated = '' and c.relkind <> 'c' then pg_catalog.pg_get_expr(d.adbin, d.adrelid) end as "default", case when a.attgenerated <> '' then pg_catalog.pg_get_expr(d.adbin, d.adrelid) end as "generated as",
             case a.attgenerated when 's' then 'stored' when 'v' then 'virtual' end as "generated", -- Since 17 partitions share their root's identity; before they had none. The root's is compared.
             case when not c.relispartition then case a.attidentity when 'a' then 'always' when 'd' then 'by default' end end as "identity",
             case when a.attcollation <> t.typcollation then (select pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname) from pg_catalog.pg_collation co join pg_catalog.pg_namespace cn on cn.oid = co.collnamespace where co.oid = a.attcollation) end as "collation",
             case when c.relkind in ('r', 'p', 'm', 'f') then case a.attstorage when 'p' then 'plain' when 'e' then 'external' when 'x' then 'extended' else 'main' end end as "storage",
             case a.attcompression when 'p' then 'pglz' when 'l' then 'lz4' end as "compression", ${statisticsTarget('a.attstattarget')}, ${sorted('a.attoptions')} as "options", ${sorted('a.attfdwoptions')} as "foreign options",
             a.attinhcount > 0 and not a.attislocal as "inherited", pg_catalog.col_description(c.oid, a.attnum) as "comment", ${labelsOf('c.oid', 'pg_class', 'a.attnum')} as "security labels",
             case when a.attacl is null then array[]::text[] else array(select distinct case when x.grantee = c.relowner then '(owner)' when x.grantee = 0 then 'public' else coalesce(g.rolname::text, x.grantee::text) end || ': ' || x.privilege_type || case when x.is_grantable then ' with grant option' else '' end
               from pg_catalog.aclexplode(a.attacl) x left join pg_catalog.pg_roles g on g.oid = x.grantee order by 1) end as "privileges"
        from pg_catalog.pg_attribute a join pg_catalog.pg_class c on c.oid = a.attrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace join pg_catalog.pg_type t on t.oid = a.atttypid
        left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
       where a.attnum > 0 and not a.attisdropped and c.relkind in ('r', 'p', 'v', 'm', 'f', 'c') and c.relpersistence <> 't' and ${ofUsers('c.oid', 'pg_class')} and ${notOfExtension('c.reltype', 'pg_type')}`,
  };
}

/** Checks, keys, foreign keys, exclusion constraints. Those that PostgreSQL made for partitions by itself have names of its own choice and are left out. */
export function constraintReader(): Reader {
  return {
    sql: `
      select case k.contype when 'c' then 'check constraint' when 'p' then 'primary key' when 'u' then 'unique constraint' when 'f' then 'foreign key' when 'x' then 'exclusion constraint' end as kind, k.conname::text as name, n.nspname::text as table_schema, c.relname::text as table_name,
             pg_catalog.pg_get_constraintdef(k.oid) as "constraint", k.coninhcount > 0 and not k.conislocal as "inherited", ${commentOf('k.oid', 'pg_constraint')}
        from pg_catalog.pg_constraint k join pg_catalog.pg_class c on c.oid = k.conrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       where k.contype in ('c', 'p', 'u', 'f', 'x') and not (k.contype = 'f' and k.conparentid <> 0) and c.relpersistence <> 't' and ${ofUsers('c.oid', 'pg_class')}`,
  };
}

export function indexReader(): Reader {
  return {
    kind: 'index',
    sql: `
      select x.relname::text as name, n.nspname::text as table_schema, c.relname::text as table_name, pg_catalog.pg_get_indexdef(i.indexrelid) as "definition", i.indisvalid as "valid", i.indisclustered as "clustered",
             (select p.relname::text from pg_catalog.pg_inherits h join pg_catalog.pg_class p on p.oid = h.inhparent where h.inhrelid = i.indexrelid) as "attached to",
             (select pg_catalog.array_agg(a.attnum || ': ' || a.attstattarget order by a.attnum) from pg_catalog.pg_attribute a where a.attrelid = i.indexrelid and a.attstattarget >= 0) as "statistics targets", ${commentOf('i.indexrelid', 'pg_class')}
        from pg_catalog.pg_index i join pg_catalog.pg_class x on x.oid = i.indexrelid join pg_catalog.pg_class c on c.oid = i.indrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       where c.relkind in ('r', 'p', 'm') and c.relpersistence <> 't' and ${ofUsers('c.oid', 'pg_class')}`,
  };
}

/** Sequences, those of identity columns too. What they stand at is no matter of schema. */
export function sequenceReader(): Reader {
  return {
    kind: 'sequence',
    sql: `
      select n.nspname::text as schema, c.relname::text as name, ${ownerOf('c.relowner')}, ${privilegesOf('c.relacl', 's', 'c.relowner')}, ${commentOf('c.oid', 'pg_class')}, pg_catalog.format_type(s.seqtypid, null) as "type", s.seqstart::text as "start", s.seqincrement::text as "increment",
             s.seqmin::text as "minimum", s.seqmax::text as "maximum", s.seqcycle as "cycle", s.seqcache::text as "cache", case c.relpersistence when 'u' then 'unlogged' else 'permanent' end as "persistence",
             (select ${qualified('d.refobjid')} || '.' || pg_catalog.quote_ident(a.attname) from pg_catalog.pg_depend d join pg_catalog.pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
               where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid and d.objsubid = 0 and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.deptype in ('a', 'i')) as "owned by"
        from pg_catalog.pg_sequence s join pg_catalog.pg_class c on c.oid = s.seqrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       where c.relpersistence <> 't' and ${ofUsers('c.oid', 'pg_class')}`,
  };
}

const firing = (column: string) => `case ${column} when 'O' then 'origin and local' when 'D' then 'never' when 'R' then 'replica' when 'A' then 'always' end as "fires"`;

/** Triggers of users. Of those that partitions got from their parent, only the ones that were turned on or off by hand. */
export function triggerReader(): Reader {
  return {
    kind: 'trigger',
    sql: `
      select t.tgname::text as name, n.nspname::text as table_schema, c.relname::text as table_name, case when t.tgparentid = 0 then pg_catalog.pg_get_triggerdef(t.oid) end as "definition", ${firing('t.tgenabled')}, ${commentOf('t.oid', 'pg_trigger')}
        from pg_catalog.pg_trigger t join pg_catalog.pg_class c on c.oid = t.tgrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       where case when t.tgparentid = 0 then not t.tgisinternal else exists (select 1 from pg_catalog.pg_trigger p where p.oid = t.tgparentid and p.tgenabled <> t.tgenabled and t.tgconstraint = 0) end and ${ofUsers('c.oid', 'pg_class')}`,
  };
}

export function ruleReader(): Reader {
  return {
    kind: 'rule',
    sql: `
      select r.rulename::text as name, n.nspname::text as table_schema, c.relname::text as table_name, pg_catalog.pg_get_ruledef(r.oid) as "definition", ${firing('r.ev_enabled')}, ${commentOf('r.oid', 'pg_rewrite')}
        from pg_catalog.pg_rewrite r join pg_catalog.pg_class c on c.oid = r.ev_class join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       where r.rulename <> '_RETURN' and ${ofUsers('c.oid', 'pg_class')}`,
  };
}

export function policyReader(): Reader {
  return {
    kind: 'policy',
    sql: `
      select p.polname::text as name, n.nspname::text as table_schema, c.relname::text as table_name, case p.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update' when 'd' then 'delete' else 'all' end as "command", p.polpermissive as "permissive",
             array(select case r when 0 then 'public' else pg_catalog.pg_get_userbyid(r)::text end from pg_catalog.unnest(p.polroles) r order by 1) as "roles", pg_catalog.pg_get_expr(p.polqual, p.polrelid) as "using", pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) as "with check", ${commentOf('p.oid', 'pg_policy')}
        from pg_catalog.pg_policy p join pg_catalog.pg_class c on c.oid = p.polrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       where ${ofUsers('c.oid', 'pg_class')}`,
  };
}

export function statisticsReader(): Reader {
  return {
    kind: 'statistics',
    sql: `
      select n.nspname::text as schema, s.stxname::text as name, tn.nspname::text as table_schema, c.relname::text as table_name, pg_catalog.pg_get_statisticsobjdef(s.oid) as "definition", ${statisticsTarget('s.stxstattarget')}, ${ownerOf('s.stxowner')}, ${commentOf('s.oid', 'pg_statistic_ext')}
        from pg_catalog.pg_statistic_ext s join pg_catalog.pg_namespace n on n.oid = s.stxnamespace join pg_catalog.pg_class c on c.oid = s.stxrelid join pg_catalog.pg_namespace tn on tn.oid = c.relnamespace
       where ${ofUsers('s.oid', 'pg_statistic_ext')}`,
  };
}
