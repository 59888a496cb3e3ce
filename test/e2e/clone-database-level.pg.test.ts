import { describe, expect, it } from 'vitest';
import { quoteIdent } from '../../src/pg/identifiers.ts';
import { clone, createDatabaseIfMissing } from '../../src/workflows/clone.ts';
import { validate } from '../../src/workflows/validate.ts';
import { withDatabase } from '../../src/pg/conninfo.ts';
import { createDatabase, sharedServer, type TestDatabase } from '../support/servers.ts';

const job = (target: TestDatabase) => target.name.toLowerCase();
const names = (database: TestDatabase) => database.query<{ name: string; space: string | null }>(`select relname::text as name, spcname::text as space from pg_class c left join pg_tablespace s on s.oid = reltablespace where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'm', 'i', 'I') order by 1`);

describe('what belongs to a database as a whole', () => {
  it('tablespaces: a table, index, key or matview goes to the one of its name, else to the default one with a warning', async () => {
    await using source = await createDatabase(await sharedServer(16), 'spaces');
    await using target = await createDatabase(await sharedServer(18), 'spaces');
    const [fast, slow] = [`fast_${process.pid}`, `Slow "${process.pid}"`] as const;
    const make = async (database: TestDatabase, ...spaces: string[]) => {
      const session = await database.session();
      await session.query('set allow_in_place_tablespaces = on');
      for (const space of spaces) await session.query(`create tablespace ${quoteIdent(space)} location ''`);
    };
    await make(source, fast, slow);
    await make(target, fast);
    try {
      await source.run(`
        create table plain (id int primary key); create table quick (id int primary key using index tablespace ${fast}, a int, b text) tablespace ${fast}; create index on quick (b); create index on quick (a) tablespace ${fast};
        create table slow (id int primary key using index tablespace ${quoteIdent(slow)}) tablespace ${quoteIdent(slow)};
        create table tree (a int) partition by list (a) tablespace ${fast}; create table leaf partition of tree for values in (1) tablespace ${fast}; create index on tree (a) tablespace ${fast};
        create materialized view mat tablespace ${fast} as select 1 as one; insert into quick values (1, 2, 'x'); insert into slow values (7)`);
      const checks = await validate({ source: source.spec, target: target.spec, job: job(target), mode: 'clone' });
      expect(checks.checks.find((c) => c.id === 'tablespaces')).toMatchObject({ status: 'warn', items: [{ subject: slow }] });
      const result = await clone({ source: source.spec, target: target.spec, job: job(target), roles: false });
      expect(result.warnings).toMatchObject([{ code: 'tablespaces', message: expect.stringContaining(slow) as string }]);
      expect(await names(target)).toEqual((await names(source)).map((row) => (row.space === slow ? { ...row, space: null } : row)));
      expect((await names(target)).filter((row) => row.space === fast).map((row) => row.name)).toEqual(['leaf', 'leaf_a_idx', 'mat', 'quick', 'quick_a_idx', 'quick_pkey', 'tree', 'tree_a_idx']);
      expect(await target.query('select * from slow')).toEqual([{ id: 7 }]);
      const none = await clone({ source: source.spec, target: target.spec, job: job(target), roles: false, resume: false, dropExisting: true, tablespaces: false });
      expect(none.warnings).toEqual([]);
      expect((await names(target)).filter((row) => row.space !== null)).toEqual([]);
    } finally {
      await source.run(`drop table plain, quick, slow, tree; drop materialized view mat`);
      for (const [database, spaces] of [[source, [fast, slow]], [target, [fast]]] as const) for (const space of spaces) await database.query(`drop tablespace ${quoteIdent(space)}`);
    }
  });

  it('owner, connection limit and security labels come along; what the target does not take is a warning', async () => {
    await using source = await createDatabase(await sharedServer(15), 'props');
    await using target = await createDatabase(await sharedServer(17), 'props');
    const owner = `props_owner_${process.pid}`;
    await source.run(`create role ${owner} login createdb; comment on role ${owner} is 'mine'; alter database ${source.name} owner to ${owner}; alter database ${source.name} connection limit 17; set allow_system_table_mods = on;
      insert into pg_shseclabel select oid, 'pg_database'::regclass, 'nowhere', 'top secret' from pg_database where datname = '${source.name}'; insert into pg_shseclabel select oid, 'pg_authid'::regclass, 'nowhere', 'top secret' from pg_roles where rolname = '${owner}'`.split('; ').join(';\n'));
    try {
      const result = await clone({ source: source.spec, target: target.spec, job: job(target) });
      // No module that gives labels is loaded on the target: each is told.
      expect(result.warnings.map((w) => w.message.split(':')[0]).filter((text) => text?.startsWith('security label'))).toEqual([`security label on role ${owner}`, `security label on database ${target.name}`]);
      expect(await target.query(`select datdba::regrole::text as owner, datconnlimit as n, shobj_description(datdba, 'pg_authid') as comment from pg_database where datname = current_database()`)).toEqual([{ owner, n: 17, comment: 'mine' }]);
      // Who owns the database may make tables in public (15 and later), as on the source.
      expect(await target.query(`select has_schema_privilege('${owner}', 'public', 'create') as may`)).toEqual([{ may: true }]);
      // Somebody else's database stays theirs.
      await target.run(`alter database ${target.name} owner to ${owner}`);
      await source.run(`alter database ${source.name} owner to postgres`);
      await clone({ source: source.spec, target: target.spec, job: job(target), resume: false, dropExisting: true, roles: false });
      expect(await target.query(`select datdba::regrole::text as owner from pg_database where datname = current_database()`)).toEqual([{ owner }]);
    } finally {
      await source.run(`set allow_system_table_mods = on; delete from pg_shseclabel where provider = 'nowhere'; alter database ${source.name} owner to postgres; drop role ${owner}`.split('; ').join(';\n'));
      await target.run(`alter database ${target.name} owner to postgres; drop role ${owner}`.split('; ').join(';\n'));
    }
  });

  it.each([[15, 16], [16, 18], [17, 17], [17, 14]] as const)('a database that is missing is made with the locale of the source, whoever provides it: %i to %i', async (from, to) => {
    const source17 = from === 17 ? ` template template0 encoding 'UTF8' locale_provider builtin builtin_locale 'C.UTF-8' lc_collate 'C' lc_ctype 'C'` : ` template template0 encoding 'UTF8' locale_provider icu icu_locale 'de' lc_collate 'C' lc_ctype 'C'`;
    await using source = await createDatabase(await sharedServer(from), 'locale', source17);
    await using beside = await createDatabase(await sharedServer(to), 'locale');
    const name = `made_${beside.name}`;
    const warnings: string[] = [];
    const target = withDatabase(beside.spec, name);
    const make = () => createDatabaseIfMissing(source.spec, target, beside.name, { job: 'made', emit: (event) => void (event.type === 'warning' && warnings.push(event.code)), signal: new AbortController().signal });
    try {
      expect(await make()).toBe(true);
      expect(await make()).toBe(false);
      const locale = from === 17 ? (to === 17 ? 'datlocale' : 'null') : to >= 17 ? 'datlocale' : 'daticulocale';
      const [row] = await beside.query<{ locale: string | null; encoding: string }>(`select ${locale}::text as locale, pg_encoding_to_char(encoding) as encoding from pg_database where datname = $1`, [name]);
      // The builtin provider came with 17.
      expect(row).toEqual({ locale: from === 17 ? (to === 17 ? 'C.UTF-8' : null) : 'de', encoding: 'UTF8' });
      expect(warnings).toEqual(to === 14 ? ['locale-unknown'] : []);
    } finally {
      await beside.query(`drop database if exists ${quoteIdent(name)}`);
    }
  });
});
