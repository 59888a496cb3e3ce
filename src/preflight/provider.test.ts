import { describe, expect, it } from 'vitest';
import { providerOf, type Provider } from './provider.ts';

const marks = (more: Partial<Parameters<typeof providerOf>[0]>) => ({ superuser: false, roles: [], setting_prefixes: [], functions: [], ...more });

describe('providerOf', () => {
  it.each<[Provider, Parameters<typeof marks>[0]]>([
    ['self-hosted', {}],
    ['self-hosted', { setting_prefixes: ['auto_explain', 'plpgsql'] }],
    ['rds', { setting_prefixes: ['rds'], roles: ['rds_superuser', 'rdsadmin'] }],
    ['aurora', { setting_prefixes: ['rds', 'aurora'], roles: ['rds_superuser'], functions: ['aurora_version'] }],
    ['cloud-sql', { setting_prefixes: ['cloudsql'] }],
    ['alloydb', { setting_prefixes: ['alloydb', 'google_columnar_engine'], roles: ['alloydbsuperuser'] }],
    ['azure', { setting_prefixes: ['azure'] }],
    ['neon', { setting_prefixes: ['neon'] }],
    ['supabase', { roles: ['supabase_admin', 'supabase_auth_admin'] }],
  ])('%s', (provider, given) => {
    expect(providerOf(marks(given))).toBe(provider);
  });

  it('does not take a server for a service because roles were copied from one', () => {
    expect(providerOf(marks({ superuser: true, roles: ['rds_superuser', 'supabase_admin', 'azure_pg_admin'] }))).toBe('self-hosted');
  });
});
