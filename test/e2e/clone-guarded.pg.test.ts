import { chmodSync, chownSync, copyFileSync, readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { noRules, parseTableFilter, parseTables, type SelectionRules } from '../../src/core/selection/rules.ts';
import { quoteIdent } from '../../src/pg/identifiers.ts';
import { clone } from '../../src/workflows/clone.ts';
import { compare } from '../../src/workflows/compare.ts';
import { validate } from '../../src/workflows/validate.ts';
import { verify } from '../../src/workflows/verify.ts';
import { rowDigests } from '../support/database-contents.ts';
import { runCli, stateFolder } from '../support/cli.ts';
import { createDatabase, privateServer, sharedServer, type TestDatabase } from '../support/servers.ts';

const job = (target: TestDatabase) => target.name.toLowerCase();
const tls = join(import.meta.dirname, '../support/tls');

/** Every text that pgweave left in a database, whatever the table. */
async function leftIn(database: TestDatabase): Promise<string> {
  const tables = await database.query<{ name: string }>(`select pg_catalog.quote_ident(tablename) as name from pg_tables where schemaname = 'pgweave'`);
  const rows = await Promise.all(tables.map(({ name }) => database.query<{ row: string }>(`select t::text as row from pgweave.${name} t`)));
  return rows.flat().map((r) => r.row).join('\n');
}

describe('clone among those who mean harm, or may do little', () => {
  it('secrets: over verified TLS with passwords, and none of them in any output, file, table or process list', { timeout: 300_000 }, async () => {
    await using server = await privateServer(16);
    for (const name of ['server.crt', 'server.key', 'ca.crt']) {
      const copy = join(server.dataFolder, name);
      copyFileSync(join(tls, name), copy);
      const { uid, gid } = statSync(server.dataFolder);
      chownSync(copy, uid, gid);
      chmodSync(copy, 0o600);
    }
    await using source = await createDatabase(server, 'secret');
    await using target = await createDatabase(server, 'secret');
    const [password, ofRole, ofMapping] = ['pw-of-mover/77', 'pw-of-role-88', 'pw-of-mapping-99'];
    await source.run(`
      create role mover superuser login replication password '${password}'; create role keeper login password '${ofRole}'; create table t (id int primary key, v text); alter table t owner to keeper; insert into t values (1, 'x');
      create extension postgres_fdw; create server far foreign data wrapper postgres_fdw options (host 'far.invalid'); create user mapping for keeper server far options (user 'me', password '${ofMapping}')`);
    const [{ hash }] = await source.query<{ hash: string }>(`select rolpassword as hash from pg_authid where rolname = 'keeper'`) as [{ hash: string }];
    server.configure({ ssl: 'on', ssl_cert_file: "'server.crt'", ssl_key_file: "'server.key'", ssl_ca_file: "'ca.crt'" });
    server.setHba(['local all all trust', 'hostssl all mover all scram-sha-256', 'hostssl replication mover all scram-sha-256', 'host all postgres all trust'].join('\n'));
    await server.restart();
    const uri = (database: TestDatabase) => `postgresql://mover:${encodeURIComponent(password!)}@localhost:${server.port}/${database.name}?sslmode=verify-full&sslrootcert=${encodeURIComponent(join(tls, 'ca.crt'))}`;
    using dir = stateFolder();
    const ran = await runCli(['clone', '--follow', '--until-caught-up', '--dir', dir.path, '--job', 'sec', '--json', '--log-level', 'debug', '--log-format', 'json'], { PGWEAVE_SOURCE: uri(source), PGWEAVE_TARGET: uri(target) });
    expect(ran.code, ran.stderr).toBe(0);
    expect(await target.query('select * from t')).toEqual([{ id: 1, v: 'x' }]);
    const files = readdirSync(dir.path, { recursive: true, encoding: 'utf8' }).map((name) => join(dir.path, name)).filter((name) => statSync(name).isFile());
    expect(files.length).toBeGreaterThan(0);
    const everything = [ran.stdout, ran.stderr, ...files.map((name) => readFileSync(name, 'latin1')), await leftIn(target), JSON.stringify(await source.query('select * from pg_stat_activity'))].join('\n');
    for (const secret of [password!, encodeURIComponent(password!), ofRole!, hash]) expect(everything).not.toContain(secret);
    // The schema's text is kept on the target, where the mapping stands in the catalog anyway; it is nowhere else.
    expect([ran.stdout, ran.stderr, ...files.map((name) => readFileSync(name, 'latin1'))].join('\n')).not.toContain(ofMapping);
    // And it was all by TLS: nothing else is let in.
    const wrong = await runCli(['clone', '--dir', dir.path, '--job', 'sec', '--follow', '--until-caught-up'], { PGWEAVE_SOURCE: uri(source).replace('sslmode=verify-full', 'sslmode=disable'), PGWEAVE_TARGET: uri(target) });
    expect(wrong.code).not.toBe(0);
    expect(wrong.stderr).toContain('no encryption');
  });

  it('search-path: functions, operators and casts of the same names as the system\'s, on the path of every session, are not met', { timeout: 300_000 }, async () => {
    await using source = await createDatabase(await sharedServer(15), 'evil');
    await using target = await createDatabase(await sharedServer(17), 'evil');
    // Each would end whatever calls it.
    const trap = `language plpgsql as $$ begin raise exception 'trapped'; end $$`;
    const evil = (schema: string) => [['quote_ident', 'text', 'text'], ['format_type', 'oid, int', 'text'], ['count', 'anyelement', 'bigint'], ['array_agg', 'name', 'text'], ['now', '', 'timestamptz'], ['version', '', 'text'], ['current_setting', 'text', 'text'], ['set_config', 'text, text, boolean', 'text'], ['pg_get_viewdef', 'oid', 'text'], ['pg_table_size', 'oid', 'bigint'], ['to_regclass', 'text', 'regclass'], ['md5', 'text', 'text'], ['coalesce_me', '', 'int']]
      .map(([name, args, returns]) => `create function ${schema}.${name}(${args}) returns ${returns} ${trap};`).join('\n');
    const operators = (schema: string) => ['=', '<>', '~', '!~', '||', '<'].map((op, i) => `create function ${schema}.op${i}(text, text) returns boolean ${trap}; create operator ${schema}.${op} (leftarg = text, rightarg = text, function = ${schema}.op${i}); create function ${schema}.on${i}(name, name) returns boolean ${trap}; create operator ${schema}.${op} (leftarg = name, rightarg = name, function = ${schema}.on${i});`).join('\n');
    for (const [database, schema] of [[source, 'evil'], [target, 'worse']] as const) {
      await database.run(`create schema ${schema}; ${evil(schema)} ${operators(schema)}`);
      await database.query(`alter database ${database.name} set search_path = ${schema}, pg_catalog, public`);
    }
    await source.run(`create table public.t (id int primary key, v text, k text generated always as (pg_catalog.upper(v)) stored); insert into public.t (id, v) select i, 'v' || i from pg_catalog.generate_series(1, 100) i; create view public.w as select v from public.t where v operator(pg_catalog.<>) 'x'; create materialized view public.m as select pg_catalog.count(*) from public.t`.replace("'v' || i", `pg_catalog.concat('v', i)`));
    const ends = { source: source.spec, target: target.spec };
    expect((await validate({ ...ends, job: job(target), mode: 'clone' })).checks.filter((c) => c.status === 'fail' && c.id !== 'target-empty')).toEqual([]);
    await clone({ ...ends, job: job(target), roles: false, rules: { ...noRules, includeTables: parseTables('t') } });
    expect(await rowDigests(target)).toEqual(await rowDigests(source));
    expect(await verify({ ...ends, job: job(target) })).toMatchObject({ ok: true });
    expect((await compare(ends)).differences.filter((d) => d.schema !== 'worse' && d.name !== 'worse')).toEqual([]);
  });

  it('weak roles: one that may read, one that owns the target; the rest is told', { timeout: 300_000 }, async () => {
    await using source = await createDatabase(await sharedServer(14), 'weak');
    await using target = await createDatabase(await sharedServer(16), 'weak');
    const [reader, maker, owner] = ['reader', 'maker', 'owner'].map((name) => `weak_${name}_${process.pid}`) as [string, string, string];
    await source.run(`create role ${reader} login; create role ${owner} login password 'x'; create table t (id serial primary key, v text); insert into t (v) select 'v' from generate_series(1, 50); alter table t owner to ${owner}; grant select on t to ${reader}; grant select on sequence t_id_seq to ${reader}`);
    await target.run(`create role ${maker} login createrole createdb; alter database ${target.name} owner to ${maker}`.split('; ').join(';\n'));
    try {
      const result = await clone({ source: { ...source.spec, user: reader }, target: { ...target.spec, user: maker }, job: job(target) });
      expect(result.warnings.map((w) => w.code)).toContain('passwords-hidden');
      // `postgres` is not for such a role to become: that is told, and nothing else is.
      expect(result.warnings.filter((w) => w.code === 'restore-tolerated').map((w) => w.message.split(':')[0])).toEqual(['owner of schema public']);
      expect(await rowDigests(target)).toEqual(await rowDigests(source));
      expect(await target.query(`select tableowner::text as owner, rolcanlogin as login, rolpassword is null as bare from pg_tables, pg_authid where tablename = 't' and rolname = '${owner}'`)).toEqual([{ owner, login: true, bare: true }]);
    } finally {
      await source.run(`drop table t; drop owned by ${reader}; drop role ${reader}, ${owner}`.split('; ').join(';\n'));
      await target.run(`alter database ${target.name} owner to postgres; reassign owned by ${owner} to postgres; reassign owned by ${maker} to postgres; drop owned by ${maker}, ${owner}; drop role ${owner}; drop role ${maker}`.split('; ').join(';\n'));
    }
  });

  it('names: two schemas with a table of one name, quotes, dots, newlines, 63 bytes and words of SQL, with filters; \\u0000 in json', { timeout: 300_000 }, async () => {
    const [left, right] = ['Левая "схема".x', 'select\nfrom'];
    const name = `Täble, "1": ${'é'.repeat(25)}`;
    const column = 'user; drop table';
    await using source = await createDatabase(await sharedServer(17), 'Na.me "x"');
    await using target = await createDatabase(await sharedServer(15), 'Na.me "x"');
    for (const schema of [left, right]) {
      await source.run(`create schema ${quoteIdent(schema)}; create table ${quoteIdent(schema)}.${quoteIdent(name)} (${quoteIdent(column)} serial primary key, "Doc.x" json, "order" text check ("order" <> '')); create index ${quoteIdent('i"x')} on ${quoteIdent(schema)}.${quoteIdent(name)} ("order");
        insert into ${quoteIdent(schema)}.${quoteIdent(name)} ("Doc.x", "order") select '{"a": "\\u0000", "b":   1}', 'o' || i from generate_series(1, 30) i`);
    }
    const pattern = (schema: string) => `"${schema.replaceAll('"', '""')}"."${name.replaceAll('"', '""')}"`;
    const rules: SelectionRules = { ...noRules, tableFilters: [parseTableFilter(`${pattern(right)}:"${column}" <= 7`)] };
    const options = { source: source.spec, target: target.spec, job: 'names_17_15', rules };
    await clone({ ...options, roles: false });
    const digests = await rowDigests(target);
    const whole = await rowDigests(source);
    expect(digests[`${left}.${name}`]).toBe(whole[`${left}.${name}`]);
    expect(digests[`${right}.${name}`]).toMatch(/^7 /);
    expect(await target.query(`select distinct "Doc.x"::text as doc from ${quoteIdent(left)}.${quoteIdent(name)}`)).toEqual([{ doc: '{"a": "\\u0000", "b":   1}' }]);
    expect(await verify(options)).toMatchObject({ ok: true });
    // A rule without its schema means public, where there is no such table: it proposes both.
    await expect(clone({ ...options, roles: false, resume: false, dropExisting: true, rules: { ...noRules, excludeTables: parseTables(`"${name.replaceAll('"', '""')}"`) } })).rejects.toMatchObject({ exitCode: 2, hint: expect.stringContaining('Nearest') });
  });

  it('json that the target holds as jsonb: the value that it cannot have is named with its table', async () => {
    await using source = await createDatabase(await sharedServer(16), 'zero');
    await using target = await createDatabase(await sharedServer(16), 'zero');
    await source.run(`create table t (id int primary key, doc json); insert into t values (1, '"\\u0000"')`);
    // Whoever makes the tables beforehand with another type.
    await target.run(`create function to_jsonb_at_once() returns event_trigger language plpgsql as $$ begin if exists (select from pg_catalog.pg_event_trigger_ddl_commands() where object_identity = 'public.t' and command_tag = 'CREATE TABLE') then alter table public.t alter column doc type jsonb; end if; end $$; create event trigger at_once on ddl_command_end execute function to_jsonb_at_once()`);
    await expect(clone({ source: source.spec, target: target.spec, job: job(target), roles: false })).rejects.toMatchObject({ code: 'table-copy-failed', message: expect.stringMatching(/public\.t.*\\u0000 cannot be converted to text.*column doc/s) });
  });
});

