import { providerMarks, type ProviderMarks } from '../catalog/provider.ts';
import type { Session } from '../pg/session.ts';

export type Provider = 'self-hosted' | 'rds' | 'aurora' | 'cloud-sql' | 'alloydb' | 'azure' | 'neon' | 'supabase';

export const providerNames: Readonly<Record<Provider, string>> = {
  'self-hosted': 'self-hosted', rds: 'Amazon RDS', aurora: 'Amazon Aurora', 'cloud-sql': 'Google Cloud SQL', alloydb: 'Google AlloyDB', azure: 'Azure Database for PostgreSQL', neon: 'Neon', supabase: 'Supabase',
};

/** The role that stands for the administrator where the service keeps superuser to itself. */
export const adminRoles: Readonly<Record<Provider, string | undefined>> = {
  'self-hosted': undefined, rds: 'rds_superuser', aurora: 'rds_superuser', 'cloud-sql': 'cloudsqlsuperuser', alloydb: 'alloydbsuperuser', azure: 'azure_pg_admin', neon: 'neon_superuser', supabase: 'postgres',
};

/**
 * Tells a managed service by marks that it leaves in every database: its administrative roles, its own settings, its functions. A migration away from one may have
 * brought roles of the same names to a server of one's own; a superuser is only to be had there, so for a superuser roles do not count.
 */
export function providerOf(marks: ProviderMarks): Provider {
  const role = (name: string) => !marks.superuser && marks.roles.includes(name);
  const setting = (prefix: string) => marks.setting_prefixes.includes(prefix);
  if (marks.functions.includes('aurora_version') || (role('rds_superuser') && setting('aurora'))) return 'aurora';
  if (setting('rds') || role('rds_superuser')) return 'rds';
  if (setting('alloydb') || role('alloydbsuperuser')) return 'alloydb';
  if (setting('cloudsql') || role('cloudsqlsuperuser')) return 'cloud-sql';
  if (setting('azure') || role('azure_pg_admin')) return 'azure';
  if (setting('neon') || role('neon_superuser')) return 'neon';
  if (role('supabase_admin')) return 'supabase';
  return 'self-hosted';
}

export async function detectProvider(session: Session): Promise<Provider> {
  return providerOf(await session.one<ProviderMarks>(providerMarks()));
}
