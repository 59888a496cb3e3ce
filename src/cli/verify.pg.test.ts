import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { runCli, stateFolder } from '../../test/support/cli.ts';
import { createDatabase, sharedServer, type TestDatabase } from '../../test/support/servers.ts';
import type { ValidateResult } from '../workflows/validate.ts';
import type { VerifyReport } from '../workflows/verify.ts';

describe('pgweave verify and validate on the command line', () => {
  let source: TestDatabase;
  let target: TestDatabase;
  let folder: ReturnType<typeof stateFolder>;
  const run = (...args: string[]) => runCli([...args, '--source', source.uri, '--target', target.uri, '--dir', folder.path, '--no-interactive']);
  beforeAll(async () => {
    folder = stateFolder();
    source = await createDatabase(await sharedServer(15), 'vcli_src');
    target = await createDatabase(await sharedServer(17), 'vcli_dst');
    const schema = `create table prices (id int primary key, amount numeric); insert into prices select g, (g || '.00')::numeric from generate_series(1, 1000) g; create table "Odd, T" (id int primary key); insert into "Odd, T" select generate_series(1, 800); create sequence tickets`;
    for (const db of [source, target]) await db.run(schema);
  });
  afterAll(async () => {
    await source?.drop();
    await target?.drop();
    folder?.[Symbol.dispose]();
  });

  it('says that all is equal, exit code 0', async () => {
    const result = await run('verify');
    expect(result).toMatchObject({ code: 0, stderr: '' });
    expect(result.stdout).toMatch(/^2 tables, 1,800 rows compared in 00:00:\d\d\n2 tables equal\.\n$/);
  });

  it('names rows and columns that differ, proposes the command that mends them, exit code 3; mends them, exit code 0', async () => {
    await target.run(`update prices set amount = 10.0 where id = 10; delete from prices where id = 904; select setval('tickets', 1, false)`);
    await source.run(`select setval('tickets', 7)`);
    const found = await run('verify');
    expect(found.code).toBe(3);
    expect(found.stdout).toContain('public.prices   2 rows differ');
    expect(found.stdout).toContain('id=10: amount 10.00 here, 10.0 there');
    expect(found.stdout).toContain('id=904: missing on the target');
    expect(found.stdout).toContain('public.tickets   sequence is behind: next value 8 here, 1 there');
    expect(found.stdout).toContain(`1 table equal, 1 differs.  pgweave verify --dir ${folder.path} --source … --target … --tables public.prices --repair`);
    const json = await run('verify', '--json', '--no-values', '--tables', 'public.prices');
    expect(json.stdout).toContain('"amount"');
    expect(json.stdout).not.toContain('10.00');
    expect(json).toMatchObject({ code: 3, stderr: '' });
    const report = JSON.parse(json.stdout) as VerifyReport;
    expect(report).toMatchObject({ format: 1, mode: 'plain', ok: false, totals: { tables: 1, different: 1, differingRows: 2 }, tables: [{ missing: 1, changed: 1, extra: 0 }] });
    const repaired = await run('verify', '--tables', 'prices', '--repair');
    expect(repaired.stdout).toContain('repaired: 1 inserted, 1 updated, 0 deleted; equal now');
    expect(repaired.code).toBe(0);
    await target.run(`select setval('tickets', 7)`);
  });

  it('goes on after an interruption with the tables that were not compared yet', async () => {
    await source.run(`create table broken (id int primary key, v int)`);
    await target.run(`create table broken (id int primary key, v int)`);
    // The session is ended in the middle: what was found equal until then is kept.
    await source.run(`insert into broken select g, g from generate_series(1, 50) g; create function boom(i int) returns int language plpgsql immutable as $$ begin if i = 50 then perform pg_terminate_backend(pg_backend_pid()); end if; return i; end $$; alter table broken add column bad int generated always as (1) stored`);
    await target.run(`insert into broken select g, g from generate_series(1, 50) g; alter table broken add column bad int generated always as (1) stored`);
    const dying = await run('verify', '--jobs', '1', '--table-filter', 'broken:public.boom(id) > 0');
    expect(dying.code).toBe(1);
    expect(dying.stderr).toContain('pgweave:');
    const kept = JSON.parse(readFileSync(join(folder.path, 'verify.json'), 'utf8')) as { tables: { table: { name: string } }[] };
    expect(kept.tables.map((t) => t.table.name).sort()).toEqual(['Odd, T', 'prices']);
    // What was known is not read again: a difference made meanwhile in such a table is not seen until a run begins anew.
    await source.run(`create or replace function boom(i int) returns int language plpgsql immutable as $$ begin return i; end $$`);
    await target.run('update prices set amount = 0 where id = 1');
    const resumed = await run('verify', '--jobs', '1', '--table-filter', 'broken:public.boom(id) > 0');
    expect(resumed).toMatchObject({ code: 0, stdout: expect.stringContaining('3 tables equal') });
    // A run that came to its end leaves nothing to go on from.
    expect(JSON.parse(readFileSync(join(folder.path, 'verify.json'), 'utf8'))).toEqual({ format: 1, of: null, tables: [] });
    await target.run(`update prices set amount = 1.00 where id = 1; drop table broken`);
    await source.run('drop table broken; drop function boom');
  });

  it('refuses wrong flags and names with exit code 2', async () => {
    expect(await run('verify', '--sample', '0')).toMatchObject({ code: 2, stderr: expect.stringContaining('not a share') });
    expect(await run('verify', '--tables', 'price')).toMatchObject({ code: 2, stderr: expect.stringContaining('public.prices') });
    expect(await run('verify', '--tables', '"Odd, T"')).toMatchObject({ code: 0, stdout: expect.stringContaining('1 table equal') });
  });

  it('validates: exit code 3 with the failures, JSON on stdout alone', async () => {
    const text = await run('validate', '--follow');
    expect(text.code).toBe(3);
    expect(text.stdout).toContain('FAIL  target is not empty: 2 tables of the same name are there');
    expect(text.stdout).toMatch(/\d+ failures?, \d+ warnings?\. Nothing was changed\.\n$/);
    const json = await run('validate', '--json', '--drop-existing');
    expect(json).toMatchObject({ code: 0, stderr: '' });
    expect(JSON.parse(json.stdout) as ValidateResult).toMatchObject({ format: 1, ok: true, mode: 'clone', tables: 2 });
    const unreachable = await runCli(['validate', '--source', source.uri, '--target', 'postgresql://x:geheim99@127.0.0.1:1/x']);
    expect(unreachable).toMatchObject({ code: 3, stdout: expect.stringContaining('cannot connect to the target') });
    expect(`${unreachable.stdout}${unreachable.stderr}`).not.toContain('geheim99');
  });
});
