import { commentOf, notBuiltIn, ofUsers, ownerOf, privilegesOf, sorted } from './fragments.ts';
import type { Reader } from './model.ts';

const functionName = (oid: string) => `nullif(${oid}::pg_catalog.oid, 0)::pg_catalog.regprocedure::text`;
const operatorName = (oid: string) => `nullif(${oid}, 0)::pg_catalog.regoperator::text`;

/** Functions, procedures, window functions and aggregates. The name carries input types alone: how output arguments are printed changed with 14. */
export function routineReader(): Reader {
  return {
    sql: `
      select case p.prokind when 'p' then 'procedure' when 'a' then 'aggregate' else 'function' end as kind, n.nspname::text as schema, p.proname || '(' || pg_catalog.oidvectortypes(p.proargtypes) || ')' as name, ${ownerOf('p.proowner')}, ${privilegesOf('p.proacl', 'f', 'p.proowner')}, ${commentOf('p.oid', 'pg_proc')},
             case when p.prokind <> 'a' then pg_catalog.pg_get_function_arguments(p.oid) end as "arguments", pg_catalog.pg_get_function_result(p.oid) as "result", l.lanname::text as "language", p.prosrc as "source", p.probin as "library", pg_catalog.pg_get_function_sqlbody(p.oid) as "body",
             case p.provolatile when 'i' then 'immutable' when 's' then 'stable' else 'volatile' end as "volatility", p.proisstrict as "strict", p.prosecdef as "security definer", p.proleakproof as "leakproof", case p.proparallel when 's' then 'safe' when 'r' then 'restricted' else 'unsafe' end as "parallel",
             p.procost::text as "cost", p.prorows::text as "rows", ${functionName('p.prosupport')} as "support", ${sorted('p.proconfig')} as "settings", p.prokind = 'w' as "window",
             (select pg_catalog.array_agg(pg_catalog.format_type(t, null)) from pg_catalog.unnest(p.protrftypes) t) as "transforms",
             ${['aggtransfn', 'aggfinalfn', 'aggcombinefn', 'aggserialfn', 'aggdeserialfn', 'aggmtransfn', 'aggminvtransfn', 'aggmfinalfn'].map((column) => `${functionName(`a.${column}`)} as "${column}"`).join(', ')},
             ${operatorName('a.aggsortop')} as "sort operator", pg_catalog.format_type(a.aggtranstype, null) as "state type", nullif(pg_catalog.format_type(a.aggmtranstype, null), '-') as "moving state type", a.aggtransspace as "state space", a.aggmtransspace as "moving state space", a.agginitval as "initial state", a.aggminitval as "initial moving state",
             a.aggkind::text as "aggregate kind", a.aggnumdirectargs as "direct arguments", a.aggfinalextra as "final extra", a.aggmfinalextra as "moving final extra", a.aggfinalmodify::text as "final modifies", a.aggmfinalmodify::text as "moving final modifies"
        from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace join pg_catalog.pg_language l on l.oid = p.prolang left join pg_catalog.pg_aggregate a on a.aggfnoid = p.oid
       where ${ofUsers('p.oid', 'pg_proc')} and not exists (select 1 from pg_catalog.pg_depend i where i.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and i.objid = p.oid and i.deptype = 'i' and i.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass)`,
  };
}

export function operatorReader(): Reader {
  return {
    kind: 'operator',
    sql: `
      select n.nspname::text as schema, o.oprname || ' (' || coalesce(pg_catalog.format_type(nullif(o.oprleft, 0), null), 'none') || ', ' || coalesce(pg_catalog.format_type(nullif(o.oprright, 0), null), 'none') || ')' as name, ${ownerOf('o.oprowner')}, ${commentOf('o.oid', 'pg_operator')},
             pg_catalog.format_type(o.oprresult, null) as "result", ${functionName('o.oprcode')} as "function", ${operatorName('o.oprcom')} as "commutator", ${operatorName('o.oprnegate')} as "negator", ${functionName('o.oprrest')} as "restrict", ${functionName('o.oprjoin')} as "join", o.oprcanhash as "hashes", o.oprcanmerge as "merges"
        from pg_catalog.pg_operator o join pg_catalog.pg_namespace n on n.oid = o.oprnamespace where ${ofUsers('o.oid', 'pg_operator')}`,
  };
}

export function operatorClassReader(): Reader {
  return {
    kind: 'operator class',
    sql: `
      select n.nspname::text as schema, o.opcname || ' using ' || am.amname as name, ${ownerOf('o.opcowner')}, ${commentOf('o.oid', 'pg_opclass')}, pg_catalog.format_type(o.opcintype, null) as "type", pg_catalog.format_type(nullif(o.opckeytype, 0), null) as "key type", o.opcdefault as "default for its type",
             pg_catalog.quote_ident(fn.nspname) || '.' || pg_catalog.quote_ident(f.opfname) as "family"
        from pg_catalog.pg_opclass o join pg_catalog.pg_namespace n on n.oid = o.opcnamespace join pg_catalog.pg_am am on am.oid = o.opcmethod join pg_catalog.pg_opfamily f on f.oid = o.opcfamily join pg_catalog.pg_namespace fn on fn.oid = f.opfnamespace
       where ${ofUsers('o.oid', 'pg_opclass')}`,
  };
}

export function operatorFamilyReader(): Reader {
  return {
    kind: 'operator family',
    sql: `
      select n.nspname::text as schema, f.opfname || ' using ' || am.amname as name, ${ownerOf('f.opfowner')}, ${commentOf('f.oid', 'pg_opfamily')},
             array(select o.amopstrategy || ' ' || o.amopopr::pg_catalog.regoperator || case when o.amopsortfamily <> 0 then ' for order by ' || o.amopsortfamily else '' end from pg_catalog.pg_amop o where o.amopfamily = f.oid order by 1) as "operators",
             array(select p.amprocnum || ' ' || p.amproc::pg_catalog.regprocedure from pg_catalog.pg_amproc p where p.amprocfamily = f.oid order by 1) as "functions"
        from pg_catalog.pg_opfamily f join pg_catalog.pg_namespace n on n.oid = f.opfnamespace join pg_catalog.pg_am am on am.oid = f.opfmethod where ${ofUsers('f.oid', 'pg_opfamily')}`,
  };
}

export function castReader(): Reader {
  return {
    kind: 'cast',
    sql: `
      select pg_catalog.format_type(c.castsource, null) || ' as ' || pg_catalog.format_type(c.casttarget, null) as name, ${functionName('c.castfunc')} as "function", case c.castcontext when 'e' then 'explicit' when 'a' then 'assignment' else 'implicit' end as "context",
             case c.castmethod when 'f' then 'function' when 'i' then 'in and out' else 'binary' end as "method", ${commentOf('c.oid', 'pg_cast')}
        from pg_catalog.pg_cast c where ${notBuiltIn('c.oid', 'pg_cast')}
         and not exists (select 1 from pg_catalog.pg_depend d where d.classid = 'pg_catalog.pg_cast'::pg_catalog.regclass and d.objid = c.oid and d.deptype = 'i')`,
  };
}

export function conversionReader(): Reader {
  return {
    kind: 'conversion',
    sql: `
      select n.nspname::text as schema, c.conname::text as name, ${ownerOf('c.conowner')}, ${commentOf('c.oid', 'pg_conversion')}, pg_catalog.pg_encoding_to_char(c.conforencoding)::text as "from", pg_catalog.pg_encoding_to_char(c.contoencoding)::text as "to", ${functionName('c.conproc')} as "function", c.condefault as "is default"
        from pg_catalog.pg_conversion c join pg_catalog.pg_namespace n on n.oid = c.connamespace where ${ofUsers('c.oid', 'pg_conversion')}`,
  };
}

export function transformReader(): Reader {
  return {
    kind: 'transform',
    sql: `
      select pg_catalog.format_type(t.trftype, null) || ' language ' || l.lanname as name, ${functionName('t.trffromsql')} as "from SQL", ${functionName('t.trftosql')} as "to SQL", ${commentOf('t.oid', 'pg_transform')}
        from pg_catalog.pg_transform t join pg_catalog.pg_language l on l.oid = t.trflang where ${notBuiltIn('t.oid', 'pg_transform')}`,
  };
}

export function languageReader(): Reader {
  return {
    kind: 'language',
    sql: `
      select l.lanname::text as name, ${ownerOf('l.lanowner')}, ${privilegesOf('l.lanacl', 'l', 'l.lanowner')}, l.lanpltrusted as "trusted", ${functionName('l.lanplcallfoid')} as "handler", ${functionName('l.laninline')} as "inline", ${functionName('l.lanvalidator')} as "validator", ${commentOf('l.oid', 'pg_language')}
        from pg_catalog.pg_language l where ${notBuiltIn('l.oid', 'pg_language')}`,
  };
}

export function accessMethodReader(): Reader {
  return {
    kind: 'access method',
    sql: `select a.amname::text as name, case a.amtype when 't' then 'table' else 'index' end as "type", ${functionName('a.amhandler')} as "handler", ${commentOf('a.oid', 'pg_am')} from pg_catalog.pg_am a where ${notBuiltIn('a.oid', 'pg_am')}`,
  };
}

export function eventTriggerReader(): Reader {
  return {
    kind: 'event trigger',
    sql: `
      select e.evtname::text as name, ${ownerOf('e.evtowner')}, e.evtevent::text as "event", ${functionName('e.evtfoid')} as "function", ${sorted('e.evttags')} as "tags", case e.evtenabled when 'O' then 'origin and local' when 'D' then 'never' when 'R' then 'replica' else 'always' end as "fires", ${commentOf('e.oid', 'pg_event_trigger')}
        from pg_catalog.pg_event_trigger e where ${notBuiltIn('e.oid', 'pg_event_trigger')}`,
  };
}
