import { quoteIdent, quoteLiteral } from '../pg/identifiers.ts';
import { advice, configurationFix, sqlFix, type Fix, type Side } from './check.ts';
import { providerNames, type Provider } from './provider.ts';

/** Names for people: quoted only where PostgreSQL would need it. */
function ident(name: string): string {
  return /^[a-z_][a-z0-9_$]*$/.test(name) ? name : quoteIdent(name);
}

const simple = (value: string) => (/^-?\d+$/.test(value) ? value : quoteLiteral(value));

/**
 * How a server setting is changed with this provider. Sources: the providers' manuals on parameters (RDS parameter groups, Cloud SQL and AlloyDB flags, Azure server
 * parameters, Supabase `postgres-config`).
 */
export function settingFix(side: Side, provider: Provider, name: string, value: string, restart: boolean): Fix {
  const after = restart ? ' Then restart the server.' : '';
  switch (provider) {
    case 'rds':
      return configurationFix(side, `set ${name} = ${value} in the instance's DB parameter group${restart ? ', then reboot the instance' : ''}`);
    case 'aurora':
      return configurationFix(side, `set ${name} = ${value} in the DB cluster parameter group${restart ? ', then reboot the writer' : ''}`);
    case 'cloud-sql':
      return configurationFix(side, `gcloud sql instances patch INSTANCE --database-flags=${name}=${value}   (name the flags already set too: this replaces the list${restart ? '; the instance restarts' : ''})`);
    case 'alloydb':
      return configurationFix(side, `gcloud alloydb instances update INSTANCE --cluster=CLUSTER --region=REGION --database-flags=${name}=${value}   (name the flags already set too${restart ? '; the instance restarts' : ''})`);
    case 'azure':
      return configurationFix(side, `az postgres flexible-server parameter set --resource-group GROUP --server-name SERVER --name ${name} --value ${value}${restart ? '   then: az postgres flexible-server restart' : ''}`);
    case 'neon':
      return advice(side, `${name} is set by Neon and depends on the compute's size; ask Neon's support to raise it`);
    case 'supabase':
      return configurationFix(side, `supabase --experimental --project-ref REF postgres-config update --config ${name}=${value}${restart ? '   (the database restarts)' : ''}`);
    case 'self-hosted':
      return restart ? sqlFix(side, `alter system set ${name} = ${simple(value)};   -- ${after.trim()}`) : sqlFix(side, `alter system set ${name} = ${simple(value)}; select pg_reload_conf();`);
  }
}

/** How logical decoding is turned on. */
export function walLevelFix(side: Side, provider: Provider): Fix {
  switch (provider) {
    case 'rds':
    case 'aurora':
      return settingFix(side, provider, 'rds.logical_replication', '1', true);
    case 'cloud-sql':
      return settingFix(side, provider, 'cloudsql.logical_decoding', 'on', true);
    case 'alloydb':
      return settingFix(side, provider, 'alloydb.logical_decoding', 'on', true);
    case 'neon':
      return configurationFix(side, 'Neon Console, project settings, Logical Replication: Enable (the computes restart; it cannot be turned off again)');
    default:
      return settingFix(side, provider, 'wal_level', 'logical', true);
  }
}

/** How a role gets the right to replicate. */
export function replicationFix(side: Side, provider: Provider, role: string): Fix {
  switch (provider) {
    case 'rds':
    case 'aurora':
      return sqlFix(side, `grant rds_replication to ${ident(role)};`);
    case 'neon':
      return advice(side, `use a role made in the Neon Console, CLI or API: such roles have REPLICATION; roles made with SQL do not`);
    case 'supabase':
      return advice(side, `connect as postgres, which has REPLICATION on Supabase, or run there: alter role ${ident(role)} with replication;`);
    default:
      return sqlFix(side, `alter role ${ident(role)} with replication;`);
  }
}

/** How a role gets what only a superuser, or the service's administrator, may do. */
export function adminFix(side: Side, provider: Provider, role: string): Fix {
  switch (provider) {
    case 'rds':
    case 'aurora':
      return sqlFix(side, `grant rds_superuser to ${ident(role)};`);
    case 'cloud-sql':
      return sqlFix(side, `grant cloudsqlsuperuser to ${ident(role)};`);
    case 'alloydb':
      return sqlFix(side, `grant alloydbsuperuser to ${ident(role)};`);
    case 'azure':
      return sqlFix(side, `grant azure_pg_admin to ${ident(role)};`);
    case 'neon':
      return advice(side, 'use a role made in the Neon Console: such roles are members of neon_superuser');
    case 'supabase':
      return advice(side, 'connect as postgres');
    case 'self-hosted':
      return sqlFix(side, `alter role ${ident(role)} with superuser;`);
  }
}

/** How the right to set session_replication_role is had. */
export function replicaRoleFix(side: Side, provider: Provider, role: string, serverVersion: number): Fix {
  if (provider === 'self-hosted') {
    return serverVersion >= 150_000 ? sqlFix(side, `grant set on parameter session_replication_role to ${ident(role)};`) : sqlFix(side, `alter role ${ident(role)} with superuser;`);
  }
  return adminFix(side, provider, role);
}

/** How an extension that the server lacks gets there. */
export function extensionFix(side: Side, provider: Provider, extension: string, major: number): Fix {
  if (provider !== 'self-hosted') return advice(side, `${providerNames[provider]} does not offer ${extension} on this server; look into its list of extensions, or remove it at the source before the copy`);
  const contrib = contribExtensions.has(extension);
  return advice(side, contrib ? `install PostgreSQL's contrib modules on the server (Debian: postgresql-${major}; Red Hat: postgresql${major}-contrib)` : `install it on the server (Debian: often postgresql-${major}-${extension.replaceAll('_', '-')}; Red Hat: ${extension}_${major})`);
}

const contribExtensions = new Set([
  'adminpack', 'amcheck', 'autoinc', 'bloom', 'btree_gin', 'btree_gist', 'citext', 'cube', 'dblink', 'dict_int', 'dict_xsyn', 'earthdistance', 'file_fdw', 'fuzzystrmatch', 'hstore', 'insert_username', 'intagg', 'intarray', 'isn', 'lo', 'ltree',
  'moddatetime', 'old_snapshot', 'pageinspect', 'pg_buffercache', 'pg_freespacemap', 'pg_prewarm', 'pg_stat_statements', 'pg_surgery', 'pg_trgm', 'pg_visibility', 'pg_walinspect', 'pgcrypto', 'pgrowlocks', 'pgstattuple', 'postgres_fdw', 'refint', 'seg',
  'sslinfo', 'tablefunc', 'tcn', 'tsm_system_rows', 'tsm_system_time', 'unaccent', 'uuid-ossp', 'xml2',
]);

/** Where a direct connection is found instead of the pooler's. */
export function directConnectionFix(side: Side, provider: Provider, host: string): Fix {
  if (provider === 'neon' || /-pooler\./.test(host)) return advice(side, `connect to the endpoint without "-pooler" in its name${/-pooler\./.test(host) ? `: ${host.replace('-pooler.', '.')}` : ''}`);
  if (provider === 'supabase' || host.endsWith('.pooler.supabase.com')) return advice(side, 'connect to db.PROJECT.supabase.co, port 5432 (the direct connection), not to the pooler');
  if (provider === 'rds' || provider === 'aurora') return advice(side, 'connect to the endpoint of the instance or of the cluster\'s writer, not to the proxy\'s');
  if (provider === 'azure') return advice(side, 'connect to port 5432; 6432 is the built-in PgBouncer');
  return advice(side, 'connect to PostgreSQL itself, on its own host and port (5432 mostly), not to the pooler\'s');
}
