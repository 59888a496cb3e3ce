import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createDatabase, embeddedVersions, sharedServer, type EmbeddedVersion } from '../../test/support/servers.ts';
import { parseConninfo } from '../pg/conninfo.ts';
import { Session } from '../pg/session.ts';
import type { Check } from './check.ts';
import type { JobKind } from './context.ts';
import { runPreflight } from './run.ts';

const kind = (mode: JobKind['mode'], more: Partial<JobKind> = {}): JobKind => ({ job: 'shop', mode, jobs: 4, dropExisting: false, roles: true, owner: true, ...more });
const one = (checks: readonly Check[], id: string): Check => {
  const found = checks.find((c) => c.id === id);
  if (!found) throw new Error(`no check ${id} among ${checks.map((c) => c.id).join(', ')}`);
  return found;
};
const fixes = (check: Check, on: string): string => [...check.fix, ...check.items.flatMap((i) => i.fix ?? [])].filter((f) => f.kind === 'sql' && f.on === on).map((f) => f.text).join('\n');

const suffix = `pre_${process.pid}`;
const app = `app_${suffix}`;
const keeper = `keeper_${suffix}`;
const asAdmin = async (version: EmbeddedVersion, sql: string) => {
  await using session = await Session.open(parseConninfo((await sharedServer(version)).uri()), { role: 'test' });
  await session.query(sql);
};

describe('rights', () => {
  const versions: EmbeddedVersion[] = [...embeddedVersions];
  beforeAll(async () => {
    for (const version of versions) await asAdmin(version, `create role ${app} login`);
    await asAdmin(15, `create role ${keeper}`);
  });
  afterAll(async () => {
    await asAdmin(15, `drop role ${keeper}`);
    for (const version of versions) await asAdmin(version, `drop role ${app}`);
  });

  it('finds what the source role lacks; its own fixes put it right', async () => {
    await using source = await createDatabase(await sharedServer(15), 'lacks');
    await using target = await createDatabase(await sharedServer(17), 'lacks');
    await source.run(`create schema hidden; create table hidden.t (id int primary key); create table mine (id int primary key); create table secret (id int primary key); grant select on secret to ${app}; alter table secret enable row level security; create table kept (id int primary key); alter table kept owner to ${keeper}`);
    const spec = parseConninfo((await sharedServer(15)).uri(source.name, app));
    const run = (mode: JobKind['mode']) => runPreflight({ source: spec, target: target.spec, kind: kind(mode) });
    const { checks } = await run('follow');
    const read = one(checks, 'source-read');
    expect(read.status).toBe('fail');
    expect(read.items.map((i) => `${i.subject}: ${i.note}`)).toEqual(['schema "hidden": no USAGE', 'hidden.t: no SELECT', 'public.kept: no SELECT', 'public.mine: no SELECT']);
    expect(one(checks, 'row-security')).toMatchObject({ status: 'fail', items: [{ subject: 'public.secret' }] });
    expect(one(checks, 'password-hashes').status).toBe('warn');
    expect(one(checks, 'replication-role').status).toBe('fail');
    expect(one(checks, 'publication-rights')).toMatchObject({ status: 'fail', facts: { createOnDatabase: false, notOwned: 4 } });
    expect(one(checks, 'switchover-rights').status).toBe('warn');
    expect(one(checks, 'long-transactions')).toMatchObject({ status: 'warn', facts: { seesAll: false } });
    // As a superuser types in what was proposed. Membership in postgres, which owns two tables, is proposed too; a superuser's role is not given away in the test.
    await source.run(`alter table hidden.t owner to ${keeper}; alter table mine owner to ${keeper}; alter table secret owner to ${keeper}`);
    const again = (await run('follow')).checks;
    for (const id of ['source-read', 'row-security', 'replication-role', 'publication-rights', 'switchover-rights', 'long-transactions']) {
      const sql = fixes(one(again, id), 'source').split('\n').filter((line) => !/superuser/.test(line)).join('\n');
      if (sql !== '') await source.run(sql);
    }
    await source.run(`alter database "${source.name}" owner to ${app}`);
    const after = (await run('follow')).checks;
    expect(['source-read', 'replication-role', 'publication-rights', 'switchover-rights'].filter((id) => one(after, id).status !== 'ok')).toEqual([]);
    expect(one(after, 'long-transactions').facts['seesAll']).toBe(true);
    expect(after.find((c) => c.id === 'row-security')).toBeUndefined();
    await source.run(`revoke ${keeper} from ${app}; revoke pg_read_all_data from ${app}; revoke pg_signal_backend from ${app}; revoke pg_read_all_stats from ${app}; alter role ${app} noreplication nobypassrls; alter database "${source.name}" owner to postgres`);
  });

  describe.each(versions)('on a target of %i', (version) => {
    it('finds what its role lacks; the fixes put it right', async () => {
      await using source = await createDatabase(await sharedServer(15), 'owner');
      await using target = await createDatabase(await sharedServer(version), 'owner');
      await source.run(`create table kept (id int primary key); alter table kept owner to ${keeper}; create extension pageinspect`);
      // As a service may hide a catalog.
      await target.run(`revoke create on schema public from public; revoke select on pg_catalog.pg_event_trigger from public`);
      const spec = parseConninfo((await sharedServer(version)).uri(target.name, app));
      const run = async (mode: JobKind['mode'], more: Partial<JobKind> = {}) => (await runPreflight({ source: source.spec, target: spec, kind: kind(mode, more) })).checks;
      const checks = await run('follow');
      const ownerCheck = version === 15 ? 'owner-membership' : 'owner-roles';
      const failing = ['target-create', 'replica-role', 'origin-rights', 'extension-rights', ownerCheck];
      expect(failing.map((id) => one(checks, id).status)).toEqual(['fail', 'warn', 'warn', 'fail', 'fail']);
      expect(one(checks, 'target-create').facts).toEqual({ createOnDatabase: false, createInPublic: false });
      expect(one(checks, 'extension-rights').items.map((i) => i.subject)).toEqual(['pageinspect']);
      expect(one(checks, ownerCheck).items.map((i) => i.subject)).toContain(keeper);
      expect(fixes(one(checks, ownerCheck), 'target')).toContain(version === 15 ? `grant "${keeper}" to "${app}"` : `create role "${keeper}"`);
      expect(one(await run('follow', { owner: false }), 'owner-roles').status).toBe('ok');
      // What an ordinary role may not see is said, and takes no other check with it.
      expect(checks.filter((c) => c.summary.includes('could not be checked')).map((c) => c.summary)).toEqual(['event triggers could not be checked: permission denied for table pg_event_trigger']);
      expect(one(checks, 'target-connections').status).toBe('ok');
      expect(one(checks, 'replication-origins')).toMatchObject({ status: 'ok', facts: { used: null } });
      const sync = one(await run('sync'), 'subscription-rights');
      expect(sync.status).toBe('fail');
      // What needs a superuser is not given to the role in a test: the servers are shared.
      const proposed = [...['target-create', 'replica-role', 'origin-rights'].map((id) => fixes(one(checks, id), 'target')), fixes(sync, 'target')].join('\n').split('\n').filter((line) => !line.includes('superuser'));
      await target.run(`${proposed.join('\n')}\nalter role ${app} createrole`);
      const after = await run('follow');
      const superuserOnly = [...(version < 15 ? ['replica-role'] : []), 'extension-rights', ...(version === 15 ? ['owner-membership'] : [])];
      expect(['target-create', 'replica-role', 'origin-rights', 'extension-rights', ownerCheck].filter((id) => after.some((c) => c.id === id && c.status !== 'ok'))).toEqual(superuserOnly);
      expect(one(await run('sync'), 'subscription-rights').status).toBe(version >= 16 ? 'ok' : 'fail');
      await target.run(`alter role ${app} nocreaterole; drop owned by ${app}`);
      await asAdmin(version, version >= 16 ? `revoke pg_create_subscription from ${app}; drop owned by ${app}` : `drop owned by ${app}`);
    });
  });
});
