import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createDatabase, embeddedVersions, sharedServer, type SharedServer, type TestDatabase } from '../../test/support/servers.ts';
import { noRules, parseTableFilter, parseTables } from '../core/selection/rules.ts';
import { renderChecks } from '../cli/render/checks.ts';
import { parseConninfo } from '../pg/conninfo.ts';
import { validate, type Check, type ValidateOptions, type ValidateResult } from './validate.ts';

const one = (result: ValidateResult, id: string): Check => {
  const found = result.checks.find((c) => c.id === id);
  if (!found) throw new Error(`no check ${id} among ${result.checks.map((c) => c.id).join(', ')}`);
  return found;
};
const fixes = (check: Check): string => [...check.fix, ...check.items.flatMap((i) => i.fix ?? [])].map((f) => f.text).join('\n');
/** What other tests do to the shared servers at the same time. */
const ofOthers = ['prepared-transactions', 'replication-slots', 'wal-senders', 'replication-origins', 'source-connections', 'target-connections'];
const bad = (result: ValidateResult): string[] => result.checks.filter((c) => c.status === 'fail' && !ofOthers.includes(c.id)).map((c) => c.id);

describe('validate', () => {
  it.each(embeddedVersions.map((v, i) => [v, embeddedVersions[(i + 1) % embeddedVersions.length]!] as const))('finds nothing wrong between a sound %i and an empty %i, for every kind of job', async (from, to) => {
    await using source = await createDatabase(await sharedServer(from), 'sound');
    await using target = await createDatabase(await sharedServer(to), 'sound');
    await source.run(`create table orders (id bigint primary key, note text collate "C"); create table part (id int primary key) partition by range (id); create table part_1 partition of part for values from (0) to (9); create sequence s`);
    for (const mode of ['clone', 'follow', 'sync'] as const) {
      const result = await validate({ source: source.spec, target: target.spec, mode });
      expect(bad(result)).toEqual([]);
      expect(result.ok).toBe(result.failures === 0);
      expect(result).toMatchObject({ tables: 2, sequences: 1, source: { provider: 'self-hosted' }, target: { provider: 'self-hosted' } });
      expect(one(result, 'versions').status).toBe(to < from ? 'warn' : 'ok');
      expect(result.checks.filter((c) => c.summary.includes('could not be checked'))).toEqual([]);
      expect(one(result, 'target-empty')).toMatchObject({ status: 'ok', summary: 'target is empty' });
      expect(one(result, 'disk-room').facts['freeBytes']).toBeGreaterThan(0);
    }
  });

  describe('with two databases of 15 and 17', () => {
    let old: SharedServer;
    let new_: SharedServer;
    let source: TestDatabase;
    let target: TestDatabase;
    const run = (options: Partial<ValidateOptions> = {}) => validate({ source: source.spec, target: target.spec, mode: 'follow', ...options });
    beforeAll(async () => {
      old = await sharedServer(15);
      new_ = await sharedServer(17);
      source = await createDatabase(old, 'check');
      target = await createDatabase(new_, 'check');
      await source.run(`
        create table good (id int primary key, state text);
        create table events (uid int not null, other int, body json); create unique index events_uid_key on events (uid); create unique index events_partial on events (other) where other > 0;
        create table nullable (a int unique);
        create table log (at timestamptz, body json);
        create table late (id int primary key deferrable);
        create table nothing (id int primary key); alter table nothing replica identity nothing;
        create table whole (id int, j json, x xml, p point, a json[], v varchar(3)); alter table whole replica identity full;
        create unlogged table fast (id int);
        create table fired (id int primary key);
        create function f() returns trigger language plpgsql as 'begin return new; end';
        create trigger always_one after insert on fired for each row execute function f(); alter table fired enable always trigger always_one;
        create trigger plain after insert on fired for each row execute function f();
        create rule replica_rule as on update to fired do also nothing; alter table fired enable replica rule replica_rule;
        select lo_create(0);
        create extension hstore version '1.7'; create extension pg_trgm;
        create foreign data wrapper nowhere; create server far foreign data wrapper nowhere; create foreign table away (id int) server far;
        create temporary table gone (id int)`);
    });
    afterAll(async () => {
      await source?.drop();
      await target?.drop();
    });

    it('names tables without a replica identity and proposes the unique index that fits', async () => {
      const check = one(await run(), 'replica-identity');
      expect(check.status).toBe('fail');
      expect(check.items.map((i) => i.subject)).toEqual(['public.events', 'public.late', 'public.log', 'public.nothing', 'public.nullable']);
      expect(fixes(check)).toContain('alter table public.events replica identity using index events_uid_key;');
      expect(fixes(check)).toContain('alter table public.nothing replica identity using index nothing_pkey;');
      expect(fixes(check)).toContain('alter table public.log replica identity full;');
      expect(fixes(check)).toContain('alter table public.late replica identity full;');
      expect(check.items.find((i) => i.subject === 'public.nullable')!.note).toContain('NOT NULL');
      expect(one(await run({ mode: 'clone' }), 'replica-identity').status).toBe('warn');
      const agreed = await run({ mode: 'sync', insertOnly: (t) => t.name !== 'events' });
      expect(one(agreed, 'replica-identity').items.map((i) => i.subject)).toEqual(['public.events']);
      expect(one(agreed, 'insert-only')).toMatchObject({ status: 'warn', items: [{}, {}, {}, {}] });
      expect(one(await run({ mode: 'sync', sourceForTarget: parseConninfo('postgresql://db.example/x') }), 'subscription-address')).toMatchObject({ status: 'ok', facts: { sourceHost: 'db.example' } });
      const full = one(await run(), 'replica-identity-full');
      expect(full).toMatchObject({ status: 'warn', items: [{ subject: 'public.whole' }] });
      expect(full.items[0]!.note).toContain('j json, x xml, p point');
      expect(full.items[0]!.note).not.toContain('varchar');
      // The statements that it proposes put it right, once typed in.
      await using copy = await createDatabase(old, 'fixed');
      await copy.run('create table events (uid int not null); create unique index events_uid_key on events (uid); create table log (a int)');
      const before = await validate({ source: copy.spec, target: target.spec, mode: 'follow' });
      await copy.run(fixes({ ...one(before, 'replica-identity'), fix: [] }));
      expect(one(await validate({ source: copy.spec, target: target.spec, mode: 'follow' }), 'replica-identity').status).toBe('ok');
    });

    it('respects the selection: tables left out are not complained about, filters need columns of the identity', async () => {
      const excluded = await run({ rules: { ...noRules, excludeTables: parseTables('events,late,log,nothing,nullable'), schemaOnlyTables: parseTables('fast') } });
      expect(one(excluded, 'replica-identity').status).toBe('ok');
      expect(one(excluded, 'unlogged-tables').status).toBe('ok');
      expect(one(await run(), 'unlogged-tables')).toMatchObject({ status: 'warn', items: [{ subject: 'public.fast' }] });
      const filter = (text: string) => run({ rules: { ...noRules, tableFilters: [parseTableFilter(text)] } });
      expect(one(await filter(`good:state <> 'x'`), 'row-filters')).toMatchObject({ status: 'warn', facts: { bySource: [], byPgweave: ['public.good'] }, items: [{ subject: 'public.good', note: 'filtered by pgweave: state is outside the replica identity' }] });
      expect(one(await filter('good:id > 7'), 'row-filters')).toMatchObject({ status: 'ok', facts: { bySource: ['public.good'], byPgweave: [] } });
      const native = (text: string, mode: 'sync' | 'clone' = 'sync') => run({ mode, rules: { ...noRules, tableFilters: [parseTableFilter(text)] } });
      expect(one(await native(`good:state <> 'x'`), 'row-filter-columns')).toMatchObject({ status: 'fail', items: [{ subject: 'public.good', note: 'state outside the identity' }] });
      expect(one(await native(`good:state <> 'x'`, 'clone'), 'row-filter-columns').status).toBe('warn');
      expect((await native('good:id > 7')).checks.find((c) => c.id.startsWith('row-filter'))).toBeUndefined();
      await using older = await createDatabase(await sharedServer(14), 'check');
      await older.run('create table good (id int primary key); create table log (v int); create table heap (v int); alter table heap replica identity full');
      const rules = { ...noRules, tableFilters: [parseTableFilter('good:id > 7'), parseTableFilter('log:v > 1')] };
      expect(one(await run({ source: older.spec, rules }), 'row-filters')).toMatchObject({ status: 'warn', facts: { byPgweave: ['public.good', 'public.log'] } });
      const heap = { ...noRules, tableFilters: [parseTableFilter('heap:v > 1')] };
      expect(one(await run({ source: older.spec, rules: heap }), 'row-filters')).toMatchObject({ status: 'fail', items: [{ subject: 'public.heap', note: expect.stringContaining('no key') }] });
      expect(one(await run({ source: older.spec, rules, mode: 'sync' }), 'row-filter-version')).toMatchObject({ status: 'fail', facts: { tables: ['public.good', 'public.log'] } });
      expect((await run({ source: older.spec, rules, mode: 'sync' })).checks.find((c) => c.id === 'row-filter-columns')).toBeUndefined();
      expect((await run({ source: older.spec, rules, mode: 'clone' })).checks.find((c) => c.id === 'row-filter-version')).toBeUndefined();
      await expect(filter('good:nope = 1')).rejects.toMatchObject({ exitCode: 2 });
    });

    it('tells of what logical replication does not carry and of what fires for replicated rows', async () => {
      const result = await run();
      expect(one(result, 'large-objects')).toMatchObject({ status: 'warn', facts: { count: 1 } });
      expect(one(result, 'foreign-tables').status).toBe('warn');
      expect(one(result, 'always-triggers').items.map((i) => i.note)).toEqual(['trigger always_one is enabled always', 'rule replica_rule is enabled for replicas']);
      expect(one(await run({ mode: 'clone' }), 'large-objects').status).toBe('ok');
    });

    it('looks for tables of the same name, and for anything else on the target', async () => {
      await using filled = await createDatabase(new_, 'filled');
      await filled.run('create table other (id int)');
      const to = (options: Partial<ValidateOptions> = {}) => validate({ source: source.spec, target: filled.spec, ...options });
      expect(one(await to(), 'target-empty')).toMatchObject({ status: 'warn', facts: { relations: 1, clashing: [] } });
      await filled.run('create view good as select 1 as id');
      expect(one(await to(), 'target-empty')).toMatchObject({ status: 'fail', items: [{ subject: 'public.good', note: 'view of the same name' }] });
      expect(renderChecks(await to()).join('\n')).toMatch(/view of the same name\n +give {2}--drop-existing .*\n +or name an empty database/);
      expect(one(await to({ dropExisting: true }), 'target-empty').status).toBe('warn');
      expect(one(await to({ rules: { ...noRules, includeTables: parseTables('events') } }), 'target-empty').status).toBe('warn');
      await filled.run(`create function e() returns event_trigger language plpgsql as 'begin end'; create event trigger watching on ddl_command_end execute function e()`);
      expect(one(await to(), 'event-triggers')).toMatchObject({ status: 'warn', items: [{ subject: 'watching' }] });
      await filled.run('alter event trigger watching disable; create schema pgweave');
      expect(one(await to(), 'target-empty').summary).toContain('a job that has begun');
    });

    it('knows when source and target are one database, and when only the server is the same', async () => {
      expect(one(await validate({ source: source.spec, target: source.spec }), 'same-database').status).toBe('fail');
      const socket = parseConninfo(`host=${old.socketFolder} port=${old.port} user=postgres dbname=${source.name}`);
      expect(one(await validate({ source: source.spec, target: socket }), 'same-database').status).toBe('fail');
      await using sibling = await createDatabase(old, 'sibling');
      expect(one(await validate({ source: source.spec, target: sibling.spec }), 'same-database')).toMatchObject({ status: 'ok', summary: 'source and target are two databases of one server' });
    });

    it('notices refused writes on either side', async () => {
      await using closed = await createDatabase(new_, 'closed');
      await closed.run(`alter database "${closed.name}" set default_transaction_read_only = on`);
      const as = (side: 'source' | 'target') => validate({ source: side === 'source' ? closed.spec : source.spec, target: side === 'target' ? closed.spec : target.spec });
      expect(one(await as('target'), 'target-writable')).toMatchObject({ status: 'fail', fix: [{ text: expect.stringContaining(`alter database "${closed.name}" reset default_transaction_read_only`) }] });
      expect(one(await as('source'), 'source-read-only').status).toBe('warn');
    });

    it('compares encodings and collations', async () => {
      await using ascii = await createDatabase(old, 'ascii', `template template0 encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C'`);
      await using latin = await createDatabase(new_, 'latin', `template template0 encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'`);
      await using icu = await createDatabase(new_, 'icu', `template template0 locale_provider icu icu_locale 'de-DE' lc_collate 'C' lc_ctype 'C'`);
      const status = async (a: TestDatabase, b: TestDatabase, id: string) => one(await validate({ source: a.spec, target: b.spec }), id).status;
      expect(one(await validate({ source: ascii.spec, target: target.spec }), 'encoding')).toMatchObject({ status: 'fail', summary: expect.stringContaining('SQL_ASCII') });
      expect(await status(source, ascii, 'encoding')).toBe('fail');
      expect(await status(ascii, ascii, 'encoding')).toBe('warn');
      expect(await status(source, latin, 'encoding')).toBe('fail');
      expect(await status(latin, target, 'encoding')).toBe('warn');
      expect(one(await validate({ source: source.spec, target: icu.spec }), 'collation')).toMatchObject({ status: 'warn', summary: expect.stringContaining('C here, icu de-DE there') });
      await using used = await createDatabase(old, 'collated');
      await used.run(`create table names (a text collate "de-x-icu", b text collate "C"); create collation own (provider = icu, locale = 'fr'); create table more (c text collate own)`);
      // LATIN1 has the ICU collations too; SQL_ASCII has none of them.
      expect(await status(used, target, 'column-collations')).toBe('ok');
      expect(one(await validate({ source: used.spec, target: ascii.spec }), 'column-collations')).toMatchObject({ status: 'fail', items: [{ subject: 'de-x-icu' }] });
    });

    it('compares extensions and their versions', async () => {
      await using used = await createDatabase(old, 'ext');
      await used.run(`create extension hstore version '1.7'`);
      const result = await validate({ source: used.spec, target: target.spec });
      expect(one(result, 'extensions').status).toBe('ok');
      expect(one(result, 'extension-versions')).toMatchObject({ status: 'warn', items: [{ subject: 'hstore', note: expect.stringContaining('1.7 here, 1.8 there') }] });
      // As an extension that the target's machine does not have: only the catalog of the source knows it.
      await used.run(`insert into pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion) values (987654, 'postgis', 10, 2200, false, '3.4.0')`);
      const missing = one(await validate({ source: used.spec, target: target.spec }), 'extensions');
      expect(missing).toMatchObject({ status: 'fail', items: [{ subject: 'postgis' }] });
      expect(fixes(missing)).toContain('postgresql-17-postgis');
      await used.run(`delete from pg_extension where oid = 987654`);
    });

    it('answers unreachable servers with a failed check and goes on with the other', async () => {
      const result = await validate({ source: parseConninfo('postgresql://x@127.0.0.1:1/x'), target: target.spec });
      expect(bad(result)).toEqual(['source-reachable']);
      expect(result).toMatchObject({ ok: false, source: null, target: { database: target.name } });
      expect(one(result, 'source-reachable').fix[0]!.text).toContain('listen_addresses');
      expect(one(result, 'target-writable').status).toBe('ok');
      const both = await validate({ source: parseConninfo(old.uri('no_such_database')), target: parseConninfo('postgresql://x@no-such-host.invalid/x') });
      expect(bad(both)).toEqual(['source-reachable', 'target-reachable']);
    });

    it('prints what people need: label, facts, fix, totals', async () => {
      const text = renderChecks(await run(), {}).join('\n');
      expect(text).toMatch(/^source {2}PostgreSQL 15\.\d+ {2}127\.0\.0\.1:\d+\/check_\S+ +\(self-hosted\) +\d+ tables /);
      expect(text).toContain('  FAIL  5 tables have no replica identity. Publishing them would make UPDATE and DELETE fail on the source.');
      expect(text).toContain('alter table public.events replica identity using index events_uid_key;');
      expect(text).toMatch(/\n +or give {2}--exclude-tables/);
      expect(text).toMatch(/\d+ failures?, \d+ warnings?\. Nothing was changed\.$/);
      expect(text).not.toContain('trigger always_one');
      expect(renderChecks(await run(), { details: true }).join('\n')).toContain('trigger always_one is enabled always');
    });
  });
});
