import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { dropSinkRoles, kitchenSink, sinkRoles } from '../../test/support/kitchen-sink.ts';
import { createDatabase, embeddedVersions, sharedServer, type TestDatabase } from '../../test/support/servers.ts';
import type { JobEvent } from '../core/events.ts';
import { armFailpoints } from '../core/failpoints.ts';
import { parseConninfo } from '../pg/conninfo.ts';
import { Session } from '../pg/session.ts';
import { compare } from '../workflows/compare.ts';
import { readDatabaseProperties, restoreDatabaseProperties } from './database.ts';
import { dumpSchema } from './dump.ts';
import { dropExisting, existingRelations } from './existing.ts';
import { restoreLargeObjectAttributes } from './large-objects.ts';
import { Ledger } from './ledger.ts';
import type { SchemaPlan } from './plan.ts';
import { refreshOrder } from './refresh-order.ts';
import { addForeignKey, addKeys, buildIndex, restorePhase, type RestoreContext } from './restore.ts';
import { readRoles, restoreRoles } from './roles.ts';
import { planSchema } from './statements.ts';

const prefix = `restore${process.pid}`;
const prefixes: string[] = [];
const others = ['boss', 'member', 'group', 'stranger', 'weak', 'present'].map((name) => `${prefix}_${name}`);

let events: JobEvent[] = [];
const emit = (event: JobEvent) => void events.push(event);
const warnings = () => events.filter((event) => event.type === 'warning');
beforeEach(() => {
  events = [];
});
afterAll(async () => {
  armFailpoints('');
  for (const version of embeddedVersions) {
    await using session = await Session.open(parseConninfo((await sharedServer(version)).uri()), { role: 'test' });
    for (const used of prefixes) await session.query(dropSinkRoles(used));
    for (const role of others) await session.query(`drop role if exists ${role}`);
  }
});

async function restoreAll(target: Session, plan: SchemaPlan, context: RestoreContext): Promise<void> {
  await restorePhase(target, plan, 'pre-data', context);
  for (const index of plan.indexes) await buildIndex(target, index, context);
  await addKeys(target, plan.indexes, context);
  await restorePhase(target, plan, 'attach', context);
  for (const key of plan.foreignKeys) await addForeignKey(target, key, context);
  await restorePhase(target, plan, 'post-data', context);
}

async function context(target: Session, job = 'test'): Promise<RestoreContext> {
  return { ledger: await Ledger.open(target, job), emit };
}

/** A dump without what tells one from the next. */
function comparable(text: string): string {
  return text.replace(/^\\(?:un)?restrict \w{30,}\n/gm, '').replace(/^-- Dumped .*\n/gm, '');
}

/** Fills a database; returns the prefix of its roles, which are dropped at the end. */
async function sink(database: TestDatabase, version: number): Promise<string> {
  const rolePrefix = `${prefix}s${prefixes.length}`;
  prefixes.push(rolePrefix);
  await database.run(kitchenSink({ version, rolePrefix }));
  return rolePrefix;
}

describe('a whole schema', () => {
  it.each([14, 16, 18] as const)('comes out of the restore as it went in, on %i', async (version) => {
    const server = await sharedServer(version);
    await using from = await createDatabase(server, 'restore');
    await using to = await createDatabase(server, 'restore');
    await sink(from, version);
    await using source = await Session.open(from.spec, { role: 'test' });
    await using target = await Session.open(to.spec, { role: 'test' });
    const dump = await dumpSchema({ source, dumper: 'bundled' });
    const plan = await planSchema(dump.text, { refresh: await refreshOrder(source) });
    expect(plan.leftOut).toEqual([]);
    const restoring = await context(target);
    await restoreAll(target, plan, restoring);
    await target.query('select pg_catalog.lo_create(oid) from pg_catalog.unnest(array[910001, 910002, 910003]) oid');
    expect(await restoreLargeObjectAttributes(source, target, { emit })).toBe(0);
    await restoreDatabaseProperties(target, await readDatabaseProperties(source), restoring);
    expect(warnings()).toEqual([]);
    expect(comparable((await dumpSchema({ source: target, dumper: 'bundled' })).text)).toBe(comparable(dump.text));
    const result = await compare({ source: from.spec, target: to.spec });
    expect(result.differences).toEqual([]);
    expect(await to.query(`select m.oid, pg_catalog.pg_get_userbyid(m.lomowner)::text as owner, pg_catalog.obj_description(m.oid, 'pg_largeobject') as comment, m.lomacl::text as acl from pg_catalog.pg_largeobject_metadata m order by 1`))
      .toEqual(await from.query(`select m.oid, pg_catalog.pg_get_userbyid(m.lomowner)::text as owner, pg_catalog.obj_description(m.oid, 'pg_largeobject') as comment, m.lomacl::text as acl from pg_catalog.pg_largeobject_metadata m order by 1`));

    // A second run finds everything done.
    let skipped = 0;
    const again: RestoreContext = { ...(await context(target)), onDone: () => void (skipped += 1) };
    await restoreAll(target, plan, again);
    expect(skipped).toBe(plan.preData.length + plan.indexes.length + plan.indexes.filter((index) => index.constraint).length + plan.attach.length + plan.foreignKeys.length + plan.postData.length);
    // A table, and after it everything, can be dropped by the plan itself.
    expect(await dropExisting(target, plan, await existingRelations(target, plan))).toBeGreaterThan(100);
    expect(await existingRelations(target, plan)).toEqual([]);
    await again.ledger.forget(target);
    await restoreAll(target, plan, again);
    expect((await compare({ source: from.spec, target: to.spec })).differences).toEqual([]);
  });

  it.each([[14, 18], [15, 17]] as const)('goes from %i to %i', async (older, newer) => {
    await using from = await createDatabase(await sharedServer(older), 'restore');
    await using to = await createDatabase(await sharedServer(newer), 'restore');
    const rolePrefix = await sink(from, older);
    await using source = await Session.open(from.spec, { role: 'test' });
    await using target = await Session.open(to.spec, { role: 'test' });
    const restoring = await context(target);
    const roles = await readRoles(source);
    expect(await restoreRoles(target, roles, restoring)).toMatchObject({ made: expect.any(Number) as number });
    const plan = await planSchema((await dumpSchema({ source })).text, { refresh: await refreshOrder(source) });
    await restoreAll(target, plan, restoring);
    await restoreDatabaseProperties(target, await readDatabaseProperties(source), restoring);
    const result = await compare({ source: from.spec, target: to.spec });
    expect(result.differences).toEqual([]);
    // As they were on the source, with passwords, settings and memberships.
    const attributes = `select r.rolname::text as name, r.rolpassword, r.rolconnlimit, r.rolvaliduntil::text, r.rolinherit, r.rolcanlogin, r.rolcreatedb, r.rolcreaterole, shobj_description(r.oid, 'pg_authid') as comment,
      (select s.setconfig from pg_db_role_setting s where s.setrole = r.oid and s.setdatabase = 0) as settings, array(select g.rolname || ' ' || m.admin_option from pg_auth_members m join pg_roles g on g.oid = m.roleid where m.member = r.oid and g.rolname like $1 order by 1) as groups
      from pg_authid r where r.rolname like $1 order by 1`;
    const made = await to.query(attributes, [`${rolePrefix}%`]);
    expect(made).toHaveLength(sinkRoles(rolePrefix).length);
    expect(made).toEqual(await from.query(attributes, [`${rolePrefix}%`]));
  });

  it('goes to an older server where nothing new is used', async () => {
    await using from = await createDatabase(await sharedServer(18), 'restore');
    await using to = await createDatabase(await sharedServer(14), 'restore');
    await from.run(`create table a (id int primary key, t text not null default 'x', u int generated always as (id * 2) stored); create index on a (t); create table b (a int references a); create view v as select id from a group by id; create materialized view m as select * from v;
      create function f() returns int language sql begin atomic select 1; end; create type e as enum ('a'); create domain d as int check (value > 0)`);
    await using source = await Session.open(from.spec, { role: 'test' });
    await using target = await Session.open(to.spec, { role: 'test' });
    await restoreAll(target, await planSchema((await dumpSchema({ source })).text, { refresh: await refreshOrder(source) }), await context(target));
    expect((await compare({ source: from.spec, target: to.spec })).differences).toEqual([]);
  });
});

describe('a restore that stops', () => {
  it('goes on where it stopped: at a kill between two transactions, and at an object that is in the way', async () => {
    await using database = await createDatabase(await sharedServer(17), 'restore');
    await using target = await Session.open(database.spec, { role: 'test' });
    const tables = Array.from({ length: 130 }, (_, i) => `CREATE TABLE "public"."t${i}" ("id" integer); CREATE SEQUENCE "public"."s${i}";`).join('\n');
    const plan = await planSchema(tables);
    armFailpoints('restore-batch=error@2');
    await expect(restorePhase(target, plan, 'pre-data', await context(target))).rejects.toThrow('failpoint');
    armFailpoints('');
    const [{ count } = { count: '' }] = await database.query<{ count: string }>(`select count(*)::text as count from pg_catalog.pg_class where relname ~ '^[ts][0-9]+$'`);
    expect(count).toBe('80');
    await database.run('create table t100 (other text)');
    const error = await restorePhase(target, plan, 'pre-data', await context(target)).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: 'restore-failed', message: expect.stringContaining('table public.t100'), hint: expect.stringContaining('--drop-existing'), details: { sqlstate: '42P07', sql: 'CREATE TABLE "public"."t100" ("id" integer)' } });
    await database.run('drop table t100');
    await restorePhase(target, plan, 'pre-data', await context(target));
    expect(await database.query(`select count(*)::text as count from pg_catalog.pg_class where relname ~ '^[ts][0-9]+$'`)).toEqual([{ count: '260' }]);
    expect(await database.query('select count(*)::text as count from pgweave.ledger')).toEqual([{ count: '260' }]);
  });

  it('writes ledger lines inside of the caller\'s transaction, job by job', async () => {
    await using database = await createDatabase(await sharedServer(15), 'restore');
    await using target = await Session.open(database.spec, { role: 'test' });
    const ledger = await Ledger.open(target, 'one');
    const key = `odd "key" 'x' \\ é`;
    await target.query(`begin; ${ledger.lineSql(key, 'a note')}; rollback`);
    expect((await Ledger.open(target, 'one')).done(key)).toBe(false);
    await target.query(`begin; ${ledger.lineSql(key, `it's`)}; ${ledger.lineSql(key)}; commit`);
    expect(ledger.done(key)).toBe(false);
    ledger.confirm(key);
    expect(ledger.done(key)).toBe(true);
    expect((await Ledger.open(target, 'one')).done(key)).toBe(true);
    expect((await Ledger.open(target, 'two')).size).toBe(0);
  });

  it('names the object, the SQL and the fix', async () => {
    await using database = await createDatabase(await sharedServer(16), 'restore');
    await using target = await Session.open(database.spec, { role: 'test' });
    const failing = async (sql: string) => await restoreAll(target, await planSchema(sql), await context(target, sql.slice(0, 40))).catch((error: unknown) => error);
    expect(await failing('CREATE EXTENSION IF NOT EXISTS "no_such_extension" WITH SCHEMA "public"')).toMatchObject({ message: expect.stringContaining('extension no_such_extension'), hint: expect.stringContaining('Install the extension') });
    expect(await failing('CREATE TABLE "public"."x" ("a" "public"."missing")')).toMatchObject({ code: 'restore-failed', message: expect.stringContaining('table public.x') });
    await database.run('create table dup (a int); insert into dup values (1), (1)');
    expect(await failing('CREATE UNIQUE INDEX "dup_key" ON "public"."dup" ("a")')).toMatchObject({ message: expect.stringMatching(/index public.dup_key.*\(a\)=\(1\)/s), hint: expect.stringContaining('REINDEX') });
    expect(await failing(`CREATE SERVER "far" FOREIGN DATA WRAPPER "missing" OPTIONS ("password" 'serverSecret9')`)).toMatchObject({ hint: expect.not.stringContaining('serverSecret9') });
  });
});

describe('what may fail', () => {
  it('is a warning: comments on extensions, owners and grants to roles that are missing; a schema may be there', async () => {
    await using database = await createDatabase(await sharedServer(16), 'restore');
    const role = `${prefix}_weak`;
    await database.run(`create extension hstore; create schema there; create role ${role} login; grant create on database ${database.name} to ${role}; grant create on schema public to ${role}`);
    await using target = await Session.open({ ...database.spec, user: role }, { role: 'test' });
    const plan = await planSchema(`
      CREATE SCHEMA "there"; CREATE SCHEMA "here"; CREATE TABLE "public"."t" ("a" integer); ALTER TABLE "public"."t" OWNER TO "${prefix}_nobody";
      COMMENT ON EXTENSION "hstore" IS 'x'; COMMENT ON TABLE "public"."t" IS 'kept'; GRANT SELECT ON TABLE "public"."t" TO "${prefix}_nobody"; SECURITY LABEL FOR "none" ON TABLE "public"."t" IS 'x';
      CREATE EVENT TRIGGER "e" ON ddl_command_end EXECUTE FUNCTION "public"."f"();`);
    await restoreAll(target, plan, await context(target));
    expect(warnings().map((event) => event.message.split(':')[0])).toEqual(['owner of table public.t', 'grant on table public.t', 'comment on extension hstore', 'security label on table public.t', 'event trigger e']);
    expect(await database.query(`select pg_catalog.obj_description('public.t'::regclass) as comment`)).toEqual([{ comment: 'kept' }]);
    // What was only a warning is not tried again.
    events = [];
    await restoreAll(target, plan, await context(target));
    expect(warnings()).toEqual([]);
  });

  it('is a foreign key whose rows do not fit: it stays NOT VALID', async () => {
    await using database = await createDatabase(await sharedServer(14), 'restore');
    await using target = await Session.open(database.spec, { role: 'test' });
    await database.run('create table a (id int primary key); create table b (a int, other int); insert into a values (1); insert into b values (1, 1), (2, 1)');
    const plan = await planSchema(`ALTER TABLE "public"."b" ADD CONSTRAINT "fits" FOREIGN KEY ("other") REFERENCES "public"."a"("id"); ALTER TABLE "public"."b" ADD CONSTRAINT "breaks" FOREIGN KEY ("a") REFERENCES "public"."a"("id");`);
    for (let run = 0; run < 2; run += 1) await restoreAll(target, plan, await context(target));
    expect(warnings()).toMatchObject([{ code: 'foreign-key-not-valid', message: expect.stringMatching(/b\.breaks.*\(a\)=\(2\)/s), hint: expect.stringContaining('validate constraint "breaks"') }]);
    expect(await database.query(`select conname::text as name, convalidated as valid from pg_catalog.pg_constraint where contype = 'f' order by 1`)).toEqual([{ name: 'breaks', valid: false }, { name: 'fits', valid: true }]);
  });

  it('is a materialized view that reads one which is not populated', async () => {
    await using from = await createDatabase(await sharedServer(17), 'restore');
    await using to = await createDatabase(await sharedServer(17), 'restore');
    await from.run('create table t (a int); create materialized view first as select a from t; create materialized view second as select a from first; create index on second (a); refresh materialized view first with no data');
    await using source = await Session.open(from.spec, { role: 'test' });
    await using target = await Session.open(to.spec, { role: 'test' });
    await restoreAll(target, await planSchema((await dumpSchema({ source, dumper: 'bundled' })).text, { refresh: await refreshOrder(source) }), await context(target));
    expect(warnings()).toMatchObject([{ code: 'restore-tolerated', message: expect.stringContaining('second') }]);
    expect(await to.query('select count(*)::int as n from pg_catalog.pg_indexes where schemaname = $1', ['public'])).toEqual([{ n: 1 }]);
  });
});

describe('a selection', () => {
  it('restores with tables left out, and tells what else is lost', async () => {
    await using from = await createDatabase(await sharedServer(18), 'restore');
    await using to = await createDatabase(await sharedServer(18), 'restore');
    await sink(from, 18);
    await using source = await Session.open(from.spec, { role: 'test' });
    await using target = await Session.open(to.spec, { role: 'test' });
    const plan = await planSchema((await dumpSchema({ source, dumper: 'bundled' })).text, { refresh: await refreshOrder(source), includeTable: ({ schema, name }) => schema !== 'bulk' && !['orders', 'events', 'parent'].includes(name) });
    await restoreAll(target, plan, await context(target));
    const lost = plan.leftOut.map((left) => `${left.object.kind} ${left.object.name}`);
    for (const name of ['foreign key order_items.items_order', 'view customer_orders', 'materialized view totals', 'function uses_view()', 'table events_2024', 'table child']) expect(lost).toContain(name);
    const { differences } = await compare({ source: from.spec, target: to.spec });
    expect(differences.filter((difference) => difference.change !== 'missing' && difference.kind !== 'database')).toEqual([]);
    const there = (await to.query<{ name: string }>(`select relname::text as name from pg_catalog.pg_class where relkind in ('r', 'p') and relnamespace::regnamespace::text in ('shop', 'bulk')`)).map((row) => row.name);
    expect(there).toContain('customers');
    for (const gone of ['orders', 'events', 'events_2024', 'parent', 'child', 'grandchild', 't_01']) expect(there).not.toContain(gone);
  });
});

describe('roles', () => {
  it('come with those that the database names and their members, are made with what is permitted, and are left alone where they are', async () => {
    const server = await sharedServer(15);
    await using from = await createDatabase(server, 'restore');
    await using to = await createDatabase(await sharedServer(17), 'restore');
    const [boss, member, group, stranger, weak, present] = others as [string, string, string, string, string, string];
    await from.run(`create role ${group} nologin; create role ${boss} superuser replication bypassrls login password 'rolepassword1' connection limit 3; create role ${member} login in role ${boss}; create role ${present} login password 'of the source'; create role ${stranger} login;
      grant ${group} to ${boss}; alter role ${boss} set search_path = 'one', '$user', 'two three'; create table t (a int); alter table t owner to ${boss}; grant select on t to ${present}`);
    try {
      await to.run(`create role ${weak} login createrole; create role ${present} nologin`);
      await to.run(`grant create on database ${to.name} to ${weak}`);
      await using source = await Session.open(from.spec, { role: 'test' });
      await using target = await Session.open({ ...to.spec, user: weak }, { role: 'test' });
      const set = await readRoles(source);
      const mine = (names: readonly string[]) => names.filter((name) => name.startsWith(prefix) && others.includes(name)).toSorted((a, b) => (a < b ? -1 : 1));
      expect(mine(set.roles.map((role) => role.name))).toEqual(mine([boss, member, group, present]));
      expect(set.notTaken).toContain(stranger);
      const ours = { ...set, roles: set.roles.filter((role) => others.includes(role.name)), memberships: set.memberships.filter((edge) => others.includes(edge.member)) };
      const restoring = await context(target);
      expect(await restoreRoles(target, ours, restoring)).toEqual({ made: 3, present: 1 });
      expect(warnings().filter((event) => event.code === 'role-attributes')).toMatchObject([{ message: expect.stringMatching(new RegExp(`${boss} was made without SUPERUSER, REPLICATION, BYPASSRLS`)) }]);
      expect(JSON.stringify(events)).not.toContain('SCRAM-SHA-256');
      const rows = await to.query<{ name: string; hash: string | null }>(`select rolname::text as name, rolsuper, rolcanlogin, rolconnlimit, rolpassword as hash from pg_catalog.pg_authid where rolname = any($1) order by rolname`, [[boss, member, group, present]]);
      const [wanted] = await from.query<{ hash: string }>('select rolpassword as hash from pg_catalog.pg_authid where rolname = $1', [boss]);
      expect(rows).toMatchObject([{ name: boss, rolsuper: false, rolcanlogin: true, rolconnlimit: 3, hash: wanted!.hash }, { name: group }, { name: member, rolcanlogin: true }, { name: present, rolcanlogin: false, hash: null }]);
      expect(await to.query(`select setconfig as settings from pg_catalog.pg_db_role_setting s join pg_catalog.pg_roles r on r.oid = s.setrole where r.rolname = $1`, [boss])).toEqual([{ settings: ['search_path=one, "$user", "two three"'] }]);
      expect(await restoreRoles(target, ours, await context(target))).toEqual({ made: 0, present: 4 });
    } finally {
      await from.run(`drop table t; ${[boss, member, group, stranger, present].map((role) => `drop role ${role}`).join('; ')}`);
      await to.run(`drop owned by ${weak}; drop role if exists ${[member, boss, group, present].join(', ')}; drop role ${weak}`);
    }
  });
});

describe('the database itself', () => {
  it('gets settings, privileges and comment, but no read-only default', async () => {
    await using from = await createDatabase(await sharedServer(16), 'restore');
    await using to = await createDatabase(await sharedServer(14), 'restore');
    await from.run(`alter database ${from.name} set work_mem = '9MB'; alter database ${from.name} set search_path = "A b", public; alter database ${from.name} set default_transaction_read_only = on; alter database ${from.name} set no.such = 'x''y';
      comment on database ${from.name} is 'it''s ours'; revoke connect on database ${from.name} from public`.split('; ').join(';\n'));
    await using source = await Session.open(from.spec, { role: 'test' });
    await using target = await Session.open(to.spec, { role: 'test' });
    await restoreDatabaseProperties(target, await readDatabaseProperties(source), await context(target));
    expect(await to.query(`select s.setconfig as settings, pg_catalog.shobj_description(d.oid, 'pg_database') as comment, pg_catalog.has_database_privilege('public', d.oid, 'connect') as connect, pg_catalog.has_database_privilege('public', d.oid, 'temporary') as temporary
      from pg_catalog.pg_database d join pg_catalog.pg_db_role_setting s on s.setdatabase = d.oid where d.datname = pg_catalog.current_database()`)).toEqual([{ settings: ['work_mem=9MB', 'search_path="A b", public', `no.such=x'y`], comment: `it's ours`, connect: false, temporary: true }]);
  });
});
