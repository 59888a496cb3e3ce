import { commentOf, notBuiltIn, ofUsers, ownerOf, privilegesOf, sorted } from './fragments.ts';
import { asMade, type Reader } from './model.ts';

const functionName = (oid: string) => `nullif(${oid}::pg_catalog.oid, 0)::pg_catalog.regprocedure::text`;

/**
 * Schemas. `public` belonged to the superuser, who let everybody create in it, until 14; since then pg_database_owner has it. Where both sides have it as their
 * version makes it, they do not differ by that.
 */
export function schemaReader(version: number): Reader {
  const initial = version >= 150_000 ? `n.nspname = 'public' and o.rolname = 'pg_database_owner' and n.nspacl::text = '{pg_database_owner=UC/pg_database_owner,=U/pg_database_owner}'` : `n.nspname = 'public' and n.nspowner = 10 and n.nspacl::text = '{' || o.rolname || '=UC/' || o.rolname || ',=UC/' || o.rolname || '}'`;
  return {
    kind: 'schema',
    sql: `
      select n.nspname::text as name, o.rolname::text as "owner", ${privilegesOf('n.nspacl', 'n', 'n.nspowner')}, ${initial} as "${asMade}", ${commentOf('n.oid', 'pg_namespace')}
        from pg_catalog.pg_namespace n join pg_catalog.pg_roles o on o.oid = n.nspowner where ${ofUsers('n.oid', 'pg_namespace')}`,
  };
}

export function extensionReader(): Reader {
  return {
    kind: 'extension',
    sql: `select e.extname::text as name, n.nspname::text as "schema of its objects", e.extversion as "version", ${commentOf('e.oid', 'pg_extension')} from pg_catalog.pg_extension e join pg_catalog.pg_namespace n on n.oid = e.extnamespace`,
  };
}

export function foreignReaders(): Reader[] {
  return [
    { kind: 'foreign data wrapper', sql: `select w.fdwname::text as name, ${ownerOf('w.fdwowner')}, ${privilegesOf('w.fdwacl', 'F', 'w.fdwowner')}, ${functionName('w.fdwhandler')} as "handler", ${functionName('w.fdwvalidator')} as "validator", ${sorted('w.fdwoptions')} as "foreign options", ${commentOf('w.oid', 'pg_foreign_data_wrapper')} from pg_catalog.pg_foreign_data_wrapper w where ${notBuiltIn('w.oid', 'pg_foreign_data_wrapper')}` },
    { kind: 'server', sql: `select s.srvname::text as name, ${ownerOf('s.srvowner')}, ${privilegesOf('s.srvacl', 'S', 's.srvowner')}, w.fdwname::text as "foreign data wrapper", s.srvtype as "type", s.srvversion as "version of the far side", ${sorted('s.srvoptions')} as "foreign options", ${commentOf('s.oid', 'pg_foreign_server')} from pg_catalog.pg_foreign_server s join pg_catalog.pg_foreign_data_wrapper w on w.oid = s.srvfdw where ${notBuiltIn('s.oid', 'pg_foreign_server')}` },
    // Options hold passwords: only a digest of each value is read, and the options' names are shown.
    { kind: 'user mapping', sql: `select u.usename || ' on ' || u.srvname as name, (select pg_catalog.array_agg(o.option_name || '=' || pg_catalog.left(pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(o.option_value, 'UTF8')), 'hex'), 12) order by o.option_name) from pg_catalog.pg_options_to_table(u.umoptions) o) as "options (values hashed)" from pg_catalog.pg_user_mappings u` },
  ];
}

export function textSearchReaders(): Reader[] {
  const from = (catalog: string, alias: string, prefix: string) => `from pg_catalog.${catalog} ${alias} join pg_catalog.pg_namespace n on n.oid = ${alias}.${prefix}namespace where ${ofUsers(`${alias}.oid`, catalog)}`;
  const named = (alias: string, prefix: string) => `n.nspname::text as schema, ${alias}.${prefix}name::text as name`;
  const functions = (alias: string, columns: Readonly<Record<string, string>>) => Object.entries(columns).map(([label, column]) => `${functionName(`${alias}.${column}`)} as "${label}"`).join(', ');
  return [
    { kind: 'text search parser', sql: `select ${named('p', 'prs')}, ${functions('p', { start: 'prsstart', token: 'prstoken', end: 'prsend', headline: 'prsheadline', 'token types': 'prslextype' })}, ${commentOf('p.oid', 'pg_ts_parser')} ${from('pg_ts_parser', 'p', 'prs')}` },
    { kind: 'text search template', sql: `select ${named('t', 'tmpl')}, ${functions('t', { init: 'tmplinit', lexize: 'tmpllexize' })}, ${commentOf('t.oid', 'pg_ts_template')} ${from('pg_ts_template', 't', 'tmpl')}` },
    { kind: 'text search dictionary', sql: `select ${named('d', 'dict')}, ${ownerOf('d.dictowner')}, (select pg_catalog.quote_ident(tn.nspname) || '.' || pg_catalog.quote_ident(t.tmplname) from pg_catalog.pg_ts_template t join pg_catalog.pg_namespace tn on tn.oid = t.tmplnamespace where t.oid = d.dicttemplate) as "template", d.dictinitoption as "options", ${commentOf('d.oid', 'pg_ts_dict')} ${from('pg_ts_dict', 'd', 'dict')}` },
    { kind: 'text search configuration', sql: `select ${named('c', 'cfg')}, ${ownerOf('c.cfgowner')}, (select pg_catalog.quote_ident(pn.nspname) || '.' || pg_catalog.quote_ident(p.prsname) from pg_catalog.pg_ts_parser p join pg_catalog.pg_namespace pn on pn.oid = p.prsnamespace where p.oid = c.cfgparser) as "parser",
        array(select t.alias || ': ' || pg_catalog.string_agg(pg_catalog.quote_ident(dn.nspname) || '.' || pg_catalog.quote_ident(d.dictname), ', ' order by m.mapseqno) from pg_catalog.pg_ts_config_map m join pg_catalog.ts_token_type(c.cfgparser) t on t.tokid = m.maptokentype join pg_catalog.pg_ts_dict d on d.oid = m.mapdict join pg_catalog.pg_namespace dn on dn.oid = d.dictnamespace
               where m.mapcfg = c.oid group by t.alias order by t.alias) as "mappings", ${commentOf('c.oid', 'pg_ts_config')} ${from('pg_ts_config', 'c', 'cfg')}` },
  ];
}

/** ALTER DEFAULT PRIVILEGES. Without a schema they replace the built-in default; within one they are added to it. */
export function defaultPrivilegesReader(): Reader {
  return {
    kind: 'default privileges',
    sql: `
      select 'of ' || r.rolname || coalesce(' in schema ' || pg_catalog.quote_ident(n.nspname), '') || ' on ' || case d.defaclobjtype when 'r' then 'tables' when 'S' then 'sequences' when 'f' then 'functions' when 'T' then 'types' when 'n' then 'schemas' when 'L' then 'large objects' else d.defaclobjtype::text end as name,
             array(select distinct case when a.grantee = d.defaclrole then '(owner)' when a.grantee = 0 then 'public' else coalesce(g.rolname::text, a.grantee::text) end || ': ' || a.privilege_type || case when a.is_grantable and a.grantee <> d.defaclrole then ' with grant option' else '' end from pg_catalog.aclexplode(d.defaclacl) a left join pg_catalog.pg_roles g on g.oid = a.grantee order by 1) as "privileges"
        from pg_catalog.pg_default_acl d join pg_catalog.pg_roles r on r.oid = d.defaclrole left join pg_catalog.pg_namespace n on n.oid = d.defaclnamespace`,
  };
}

/** What belongs to the database itself. Its name and owner are its own; read-only mode is what a switchover leaves behind. */
export function databaseReader(): Reader {
  return {
    kind: 'database',
    sql: `
      select '' as name, pg_catalog.pg_encoding_to_char(d.encoding)::text as "encoding", pg_catalog.shobj_description(d.oid, 'pg_database') as "comment", ${privilegesOf('d.datacl', 'd', 'd.datdba')},
             array(select coalesce(r.rolname || ': ', '') || line from pg_catalog.pg_db_role_setting s left join pg_catalog.pg_roles r on r.oid = s.setrole cross join pg_catalog.unnest(s.setconfig) line where s.setdatabase = d.oid and line not like 'default\\_transaction\\_read\\_only=%' order by 1) as "settings"
        from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()`,
  };
}
