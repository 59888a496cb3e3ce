import { describe, expect, it } from 'vitest';
import { CopyLedger } from '../../src/copy/copy-ledger.ts';
import { copyTables, type CopyTablesOptions } from '../../src/copy/copy-tables.ts';
import { openSnapshot } from '../../src/copy/snapshot.ts';
import { fitToTarget, planCopy } from '../../src/copy/table-plan.ts';
import { armFailpoints } from '../../src/core/failpoints.ts';
import { clone } from '../../src/workflows/clone.ts';
import { rowDigests } from '../support/database-contents.ts';
import { createDatabase, sharedServer, waitFor, type TestDatabase } from '../support/servers.ts';

const quick = { roles: false, jobs: 2 } as const;
const ends = (source: TestDatabase, target: TestDatabase) => ({ source: source.spec, target: target.spec, ...quick });

async function twoDatabases(name: string, from: 14 | 15 | 18 = 15, to: 14 | 15 | 18 = 15, options = ''): Promise<AsyncDisposable & { source: TestDatabase; target: TestDatabase }> {
  const source = await createDatabase(await sharedServer(from), name, options);
  const target = await createDatabase(await sharedServer(to), name);
  return {
    source, target,
    async [Symbol.asyncDispose]() {
      await source.drop();
      await target.drop();
    },
  };
}

async function cloneEqual({ source, target }: { source: TestDatabase; target: TestDatabase }, options: Partial<Parameters<typeof clone>[0]> = {}) {
  const result = await clone({ ...ends(source, target), ...options });
  expect(await rowDigests(target)).toEqual(await rowDigests(source));
  return result;
}

describe('values', () => {
  it('extreme-values: every byte of infinity, NaN, BC, int8, long numerics, floats, bytea, money, interval arrives, as text and as binary', async () => {
    const values = `
      create table v (i8 int8, f4 float4, f8 float8, n numeric, d date, ts timestamp, tz timestamptz, iv interval, b bytea, m money, t text, j json, u uuid, x xml, a text[], i4r int4range, bits bit varying, inet inet, p point, tid tid, c "char", ta timestamptz[]);
      insert into v values
       (9223372036854775807, 'NaN', 'Infinity', 'NaN', 'infinity', '-infinity', '4713-01-01 00:00:00+00 BC', '-178000000 years', '\\x00ff5c27', '-92233720368547758.08', E'tab\\t nl\\n back\\\\ quote'' \\\\.', '{"a": 1,   "a": 2}', gen_random_uuid(), '<a>é</a>', '{NULL,"NULL","a,b","\\"q\\""}', 'empty', B'10101', '::1/64', '(NaN,-0)', '(4294967295,65535)', '\\377', '{infinity,"2001-02-03 04:05:06.789+14"}'),
       (-9223372036854775808, '-0', 5e-324, repeat('9', 1000)::numeric, '5874897-12-31', '294276-12-31 23:59:59.999999', '0044-03-15 12:00:00+00 BC', '1 mon -1 day 25:59:59.000001', '', '0.01', '', 'null', null, null, '[0:2]={a,b,c}', '(,5)', B'', '10.0.0.0/8', '(1e308,-1e308)', '(0,0)', '', '{}'),
       (0, 1.17549435e-38, 0.1, '-0.000000000000000000001', '0001-01-01 BC', 'epoch', '2024-03-31 02:30:00+02', '00:00:00.000001', decode(repeat('00', 3000), 'hex'), '1234.56', repeat('ÄÖ€😀', 2000), '{"deep": [[[]]]}', null, null, null, null, null, null, null, null, 'x', null)`;
    for (const format of ['text', 'auto'] as const) {
      await using two = await twoDatabases('values');
      await two.source.run(values);
      // Settings that would change how values are printed, on either side.
      for (const database of [two.source, two.target]) for (const setting of [`datestyle = 'German, DMY'`, `intervalstyle = 'sql_standard'`, `timezone = 'Asia/Kathmandu'`, `bytea_output = 'escape'`, `extra_float_digits = -3`]) await database.run(`alter database "${database.name}" set ${setting}`);
      await cloneEqual(two, { format });
    }
  });

  it('types-by-name: enums, domains, composites, ranges and arrays of them arrive although their type ids differ', async () => {
    await using two = await twoDatabases('types', 14, 18);
    await two.target.run('create type burnt_1 as enum (); drop type burnt_1; create type burnt_2 as (a int); drop type burnt_2');
    await two.source.run(`
      create type color as enum ('red', 'blu e'); create domain positive as int check (value > 0); create type pair as (a color, b positive[]); create type span as range (subtype = numeric); create domain pairs as pair[];
      create table t (id int primary key, c color, cs color[], p positive, ps positive[], r pair, rs pair[], s span, ss span[], m nummultirange, d pairs, reg regclass, o oid, regs regtype[]);
      create table enums (id int primary key, c color, p positive, s span);
      insert into t select i, 'red', '{red,"blu e",NULL}', i, array[i, i + 1], row('blu e', array[i])::pair, array[row('red', null)::pair, null], span(i, i + 1.5), array[span(null, i)], '{[1,2),[3,4)}', array[row('red', array[2])::pair], 't', 4294967295, '{int4,pair,t}' from generate_series(1, 20) i;
      insert into enums select i, 'blu e', i, span(i, null) from generate_series(1, 20) i`);
    await using session = await openSnapshot(two.source.spec, { job: 'types' });
    const plans = await planCopy(session.session, { splitBytes: 0, format: 'auto', sameEncoding: true });
    expect(plans.map((p) => [p.name, p.binary])).toEqual([['enums', true], ['t', false]]);
    await cloneEqual(two);
  });

  it('wide-and-empty: 1,600 columns, no columns, and tables of nothing but defaults', async () => {
    await using two = await twoDatabases('wide');
    const columns = Array.from({ length: 1600 }, (_, i) => `c${i} bool`).join(', ');
    await two.source.run(`create table wide (${columns}); insert into wide (c0, c1599) values (true, false), (null, true); create table nothing (); insert into nothing select from generate_series(1, 17);
      create table only_generated (g int generated always as (7) stored); insert into only_generated default values; create table empty (a int primary key); create table dropped (a int, b text, c int); alter table dropped drop column b; insert into dropped values (1, 2); alter table dropped add d text default 'late'`);
    await cloneEqual(two);
  });

  it('encodings: rows of an SQL_ASCII database pass through, LATIN1 is converted', async () => {
    await using ascii = await twoDatabases('ascii', 15, 15, `encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C' template template0`);
    const alike = await createDatabase(await sharedServer(15), 'ascii', `encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C' template template0`);
    await ascii.source.run(`create table t (a text); insert into t select convert_from(decode('61ff8062', 'hex'), 'SQL_ASCII')`);
    await clone(ends(ascii.source, alike));
    expect(await alike.query(`select encode(convert_to(a, 'SQL_ASCII'), 'hex') as a from t`)).toEqual([{ a: '61ff8062' }]);
    await alike.drop();
    // A UTF8 target cannot hold these bytes: the table is named, and nothing else suffers.
    await expect(clone(ends(ascii.source, ascii.target))).rejects.toMatchObject({ code: 'table-copy-failed', message: expect.stringContaining('public.t'), details: { sqlstate: '22021' } });

    await using latin = await twoDatabases('latin', 15, 15, `encoding 'LATIN1' lc_collate 'C' lc_ctype 'C' template template0`);
    await latin.source.run(`create table t (a text); insert into t values ('Ünï£')`);
    await clone(ends(latin.source, latin.target));
    expect(await latin.target.query('select a from t')).toEqual([{ a: 'Ünï£' }]);
  });
});

describe('tables', () => {
  it('foreign-keys: cycles, self-references and deferrable keys are made after the rows, and one that rows break stays NOT VALID', async () => {
    await using two = await twoDatabases('fk');
    await two.source.run(`
      create table a (id int primary key, b int); create table b (id int primary key, a int references a); alter table a add foreign key (b) references b deferrable initially deferred;
      create table tree (id int primary key, up int references tree); insert into tree select i, nullif(i / 2, 0) from generate_series(1, 100) i;
      begin; insert into a values (1, 1); insert into b values (1, 1); commit;
      create table broken (id int references tree); set session_replication_role = replica; insert into broken values (999)`);
    const result = await cloneEqual(two);
    expect(result.warnings.map((w) => w.code)).toEqual(['foreign-key-not-valid']);
    expect(await two.target.query(`select count(*)::int as n, count(*) filter (where convalidated)::int as valid from pg_constraint where contype = 'f'`)).toEqual([{ n: 4, valid: 3 }]);
  });

  it('triggers: none fires while rows are copied, however it is enabled', async () => {
    await using two = await twoDatabases('triggers');
    await two.source.run(`
      create table t (id int primary key); create table audit (id int); create function note() returns trigger language plpgsql as 'begin insert into public.audit values (new.id); return new; end';
      create trigger plain after insert on t for each row execute function note(); create trigger always after insert on t for each row execute function note(); alter table t enable always trigger always; insert into t values (1), (2)`);
    await cloneEqual(two);
    expect(await two.target.query(`select tgenabled::text as e from pg_trigger where not tgisinternal order by tgname`)).toEqual([{ e: 'A' }, { e: 'O' }]);
  });

  it('unlogged, temporary, unpopulated, inherited: each as it is on the source', async () => {
    await using two = await twoDatabases('kinds');
    await two.source.run(`create unlogged table u (a int); insert into u values (1); create table p (a int); create table c () inherits (p); insert into p values (1); insert into c values (2);
      create materialized view filled as select * from p; create materialized view over as select count(*) from filled; create materialized view empty as select * from p with no data`);
    const session = await two.source.session();
    await session.query('create temporary table gone (a int); insert into gone values (1)');
    const result = await cloneEqual(two);
    expect(result.tables).toBe(3);
    expect(await two.target.query(`select relname, relispopulated as filled from pg_class where relkind = 'm' order by 1`)).toEqual([{ relname: 'empty', filled: false }, { relname: 'filled', filled: true }, { relname: 'over', filled: true }]);
    expect(await two.target.query(`select relpersistence::text as p from pg_class where relname = 'u'`)).toEqual([{ p: 'u' }]);
  });

  it('extension-config: rows of configuration tables come, those that the extension made itself are not doubled', async () => {
    await using two = await twoDatabases('extension', 15, 15);
    await two.source.run(`create extension hstore; create table conf (k text primary key, v text); insert into conf values ('mine', '1'), ('builtin', '0'); alter extension hstore add table conf`);
    // As an extension's script does it.
    await two.source.run(`update pg_extension set extconfig = array['conf'::regclass::oid], extcondition = array[$$WHERE k <> 'builtin'$$] where extname = 'hstore'`);
    await two.target.run(`create extension hstore; create table conf (k text primary key, v text); insert into conf values ('builtin', '0'); alter extension hstore add table conf`);
    await clone(ends(two.source, two.target));
    expect(await two.target.query('select k from conf order by k')).toEqual([{ k: 'builtin' }, { k: 'mine' }]);
  });

  it('split: a bloated table in many parts arrives once, with rows that move while it is copied seen as they were', async () => {
    await using two = await twoDatabases('split');
    await two.source.run(`create table big (id int primary key, t text); insert into big select i, repeat('x', 200) from generate_series(1, 5000) i; delete from big where id % 3 = 0; create table empty (id int); create table heir () inherits (big); insert into heir values (-1, 'heir')`);
    const before = await rowDigests(two.source);
    const events: number[] = [];
    let moved: Promise<void> | undefined;
    const result = await clone({
      ...ends(two.source, two.target), jobs: 1, splitBytes: 64 * 1024,
      onEvent: (e) => {
        if (e.type === 'tables-planned') moved ??= two.source.run(`update big set t = repeat('y', 200)`);
        if (e.type === 'copy-part' && e.status === 'done') events.push(e.part);
      },
    });
    await moved;
    expect(result.rows).toBe(3335);
    expect(events.length).toBeGreaterThan(15);
    expect(await rowDigests(two.target)).toEqual(before);
    expect(await rowDigests(two.source)).not.toEqual(before);
  });

  it('generated: stored and virtual columns and identities ALWAYS, before, between and behind others', async () => {
    await using two = await twoDatabases('generated', 18, 18);
    await two.source.run(`
      create table t (v int generated always as (a * 2) virtual, id bigint generated always as identity (start 50 increment 5) primary key, s text generated always as ('<' || b || '>') stored, a int, w text generated always as (b || 'w') virtual, b text);
      insert into t (a, b) select i, 'b' || i from generate_series(1, 30) i`);
    for (const format of ['text', 'auto'] as const) await cloneEqual(two, { format, resume: false, dropExisting: true });
    expect(await two.target.query('select v, id::int as id, s, w from t order by t.id desc limit 1')).toEqual([{ v: 60, id: 195, s: '<b30>', w: 'b30w' }]);
    expect(await two.target.query('insert into t (a, b) values (1, null) returning id::int as id')).toEqual([{ id: 200 }]);
  });

  it('snapshot-released: the source is let go of once the rows are in, while indexes are still built, and how far these are is told', async () => {
    await using two = await twoDatabases('released', 15, 18);
    // An index that somebody holds up on the target: locks of this kind are each database's own.
    await two.source.run(`create function held(int) returns int language plpgsql immutable as $$ begin if $1 = 150000 then perform pg_catalog.pg_advisory_xact_lock(77); end if; return $1; end $$;
      create table t (id int); insert into t select generate_series(1, 200000); create index slow on t (held(id))`);
    const locker = await two.target.session();
    await locker.query('select pg_catalog.pg_advisory_lock(77)');
    const phases: (string | undefined)[] = [];
    const cloned = clone({ ...ends(two.source, two.target), job: two.source.name, onEvent: (e) => { if (e.type === 'index' && e.status === 'progress') phases.push(e.phase); } });
    try {
      await waitFor('the index to be held up', async () => (await two.target.query(`select from pg_stat_activity where datname = current_database() and wait_event = 'advisory'`)).length > 0);
      await waitFor('the source to be free of our snapshot', async () => (await two.source.query(`select from pg_stat_activity where datname = current_database() and application_name like 'pgweave %' and (backend_xmin is not null or xact_start is not null) and pid <> pg_backend_pid()`)).length === 0, 20_000);
      await waitFor('the progress of the index', () => phases.length > 0, 20_000);
    } finally {
      await locker.query('select pg_catalog.pg_advisory_unlock(77)');
      await cloned;
    }
    expect(phases[0]).toEqual(expect.any(String));
    expect(await rowDigests(two.target)).toEqual(await rowDigests(two.source));
  });

  it('owners, grants and statistics: as they are on the source and gathered, or neither where that was asked for', async () => {
    await using two = await twoDatabases('plain', 18, 18);
    const role = `plain_${process.pid}`;
    await two.source.run(`create role ${role}; create table t (id int, kind text) partition by list (kind); create table t_a partition of t for values in ('a'); insert into t select i, 'a' from generate_series(1, 500) i; alter table t owner to ${role}; alter table t_a owner to ${role}; grant select on t to public`);
    const state = () => two.target.query(`select relname, relowner = '${role}'::regrole as owned, relacl is not null as granted, reltuples::int as rows, exists (select from pg_stats s where s.tablename = relname) as known from pg_class where relname in ('t', 't_a') order by 1`);
    try {
      await cloneEqual(two);
      expect(await state()).toEqual([{ relname: 't', owned: true, granted: true, rows: 500, known: true }, { relname: 't_a', owned: true, granted: false, rows: 500, known: true }]);
      await cloneEqual(two, { owners: false, privileges: false, statistics: 'none', resume: false, dropExisting: true });
      expect(await state()).toEqual([{ relname: 't', owned: false, granted: false, rows: -1, known: false }, { relname: 't_a', owned: false, granted: false, rows: -1, known: false }]);
    } finally {
      await two.source.run(`drop table t; drop role ${role}`);
    }
  });

  it('snapshot-of-the-slot: what is written once the slot is there is not in the copy, and waits in the slot', async () => {
    await using two = await twoDatabases('slot', 18, 14);
    await two.source.run(`create table t (id int primary key); insert into t select generate_series(1, 10); create table no_key (a int); create table parts (id int, primary key (id)) partition by range (id); create table parts_1 partition of parts for values from (0) to (10)`);
    const job = two.source.name;
    const result = await clone({
      ...ends(two.source, two.target), job, mode: 'follow',
      hooks: { onStreamStart: () => two.source.run('insert into t values (11); insert into no_key values (1); update t set id = -1 where id = 1') },
    });
    expect(await two.target.query('select count(*)::int as n, min(id) from t')).toEqual([{ n: 10, min: 1 }]);
    expect(await two.target.query('select from no_key')).toEqual([]);
    expect(result.stream).toMatchObject({ slot: `pgweave_${job}`, publications: { names: [`pgweave_${job}`, `pgweave_${job}_inserts`], insertsOnly: [{ schema: 'public', name: 'no_key' }] } });
    expect(await two.source.query(`select tablename from pg_publication_tables where pubname = $1 order by 1`, [`pgweave_${job}`])).toEqual([{ tablename: 'parts_1' }, { tablename: 't' }]);
    // Publishing a table without identity must not break the source.
    await two.source.run('update no_key set a = 2; delete from no_key');
    // A slot that is there is used again; a plain clone of the same job is another thing.
    expect(await clone({ ...ends(two.source, two.target), job, mode: 'follow' })).toMatchObject({ alreadyDone: true, stream: { slot: `pgweave_${job}`, lsn: result.stream!.lsn } });
    await expect(clone({ ...ends(two.source, two.target), job })).rejects.toMatchObject({ code: 'mode-changed', exitCode: 2 });
  });

  it('timeouts: those of role and database touch neither our sessions nor pg_dump', async () => {
    await using two = await twoDatabases('timeouts');
    await two.source.run('create table t (id int primary key); insert into t select generate_series(1, 10)');
    // A role's settings go before the database's.
    for (const whose of [`database "${two.source.name}"`, `role postgres in database "${two.target.name}"`]) {
      for (const setting of ['statement_timeout', 'idle_in_transaction_session_timeout', 'lock_timeout']) await (whose.startsWith('role') ? two.target : two.source).run(`alter ${whose} set ${setting} = '1s'`);
    }
    const locker = await two.source.session();
    await locker.query('set statement_timeout = 0');
    await locker.query('begin; lock table t in access exclusive mode');
    // Everybody who wants the table waits, and everybody else idles in a transaction, for longer than the timeouts.
    const released = locker.query('select pg_sleep(2.5)').then(() => locker.query('commit'));
    await clone({ ...ends(two.source, two.target), dumper: 'auto' });
    await released;
    expect(await two.target.query('select count(*)::int as n from t')).toEqual([{ n: 10 }]);
  });
});

describe('changes on the source meanwhile', () => {
  async function copyAfter(two: { source: TestDatabase; target: TestDatabase }, meanwhile: (holder: number) => Promise<void>) {
    await using dst = await two.target.session();
    await using snapshot = await openSnapshot(two.source.spec, { job: 'low' });
    const plans = await fitToTarget(await planCopy(snapshot.session, { splitBytes: 0, format: 'auto', sameEncoding: true }), dst);
    await meanwhile(snapshot.session.pid);
    const options: CopyTablesOptions = {
      source: two.source.spec, target: two.target.spec, job: 'low', snapshot, ledger: await CopyLedger.open(dst, 'low'), encoding: 'UTF8', targetEncoding: 'UTF8', tables: plans, jobs: 1, signal: new AbortController().signal,
      copiedSql: () => 'select 1', emit: () => undefined, onCopied: () => undefined,
    };
    const outcome = await copyTables(options);
    return { ...outcome, left: outcome.left.map((t) => t.name), failed: outcome.failed.map((f) => [f.table.name, (f.error as { code?: string }).code]) };
  }
  const tables = 'create table a (id int, t text); create table b (id int, gone text); create table c (id int); create table d (id int)';

  it('schema-changed: a lost column, a dropped table, a truncated and a rewritten one are noticed, the others are copied', async () => {
    await using two = await twoDatabases('changed');
    await two.source.run(`${tables}; create table e (id int); insert into a values (1, 'x'); insert into b values (1, 'y'); insert into c values (1); insert into d values (1); insert into e values (1)`);
    await two.target.run(`${tables}; create table e (id int)`);
    const outcome = await copyAfter(two, () => two.source.run('alter table b drop column gone; drop table c; truncate d; alter table e alter id type bigint'));
    expect(outcome).toMatchObject({ copied: 1, rows: 1, reason: { code: 'table-rewritten' } });
    expect(new Set(outcome.left)).toEqual(new Set(['d', 'e']));
    expect(new Map(outcome.failed as [string, string][])).toEqual(new Map([['b', 'table-changed'], ['c', 'table-changed']]));
    expect(await two.target.query('select * from a')).toEqual([{ id: 1, t: 'x' }]);
  });

  it('column-order: columns are matched by name where the target has others before, between and behind', async () => {
    await using two = await twoDatabases('order');
    await two.source.run(`create table t (gone int, a int, b text, c numeric); alter table t drop column gone; insert into t values (1, 'x', 1.50)`);
    await two.target.run(`create table t (c numeric, extra int default 7, b text, x int, a int, more text default 'm'); alter table t drop column x`);
    expect(await copyAfter(two, () => Promise.resolve())).toMatchObject({ copied: 1, failed: [] });
    expect(await two.target.query('select * from t')).toEqual([{ c: '1.50', extra: 7, b: 'x', a: 1, more: 'm' }]);
  });

  it('snapshot-lost: without its holder nothing more is copied in it, and that is no error', async () => {
    await using two = await twoDatabases('lost');
    await two.source.run(`${tables}; insert into a values (1)`);
    await two.target.run(tables);
    const outcome = await copyAfter(two, async (holder) => two.source.run(`select pg_terminate_backend(${holder}, 10000)`));
    expect(outcome).toMatchObject({ copied: 0, reason: { code: 'snapshot-lost' }, failed: [] });
    expect(outcome.left).toHaveLength(4);
  });

  it('snapshot-lost: clone takes another one for what is left, each table with the LSN of its own', async () => {
    await using two = await twoDatabases('lostclone', 15, 18);
    await two.source.run(`do $$ begin for i in 1..12 loop execute format('create table t%s (id int primary key, t text)', i); execute format('insert into t%s select i, repeat(''x'', 100) from generate_series(1, 2000) i', i); end loop; end $$`);
    const job = two.source.name;
    let ended: Promise<unknown> | undefined;
    await clone({
      ...ends(two.source, two.target), job, mode: 'follow', jobs: 1,
      onEvent: (e) => {
        if (e.type === 'table-state' && e.state.name === 'copied') ended ??= two.source.run(`select pg_terminate_backend(pid) from pg_stat_activity where application_name in ('pgweave ${job} snapshot', 'pgweave ${job} copy')`);
      },
    });
    await ended;
    expect(await rowDigests(two.target)).toEqual(await rowDigests(two.source));
    expect(await two.target.query(`select count(*)::int as n from pgweave.table_state where state = 'copied' and copied_lsn is not null`)).toEqual([{ n: 12 }]);
  });

  it('resumed-after-change: a column that the source lost between two runs is named', async () => {
    await using two = await twoDatabases('resumed');
    await two.source.run('create table t (id int primary key, gone text); insert into t values (1)');
    armFailpoints('clone.pre-data-restored=error');
    await expect(clone(ends(two.source, two.target))).rejects.toThrow(/failpoint/);
    armFailpoints('');
    await two.source.run('alter table t drop column gone');
    await expect(clone(ends(two.source, two.target))).rejects.toMatchObject({ code: 'table-changed', message: expect.stringContaining('"gone"') });
    await two.target.run('alter table t drop column gone');
    await cloneEqual(two);
  });
});
