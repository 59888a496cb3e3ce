import { describe, expect, it } from 'vitest';
import { createDatabase, embeddedVersions, sharedServer } from '../../test/support/servers.ts';
import { dropPublications, ensurePublications } from './publications.ts';

const tables = (...names: string[]) => names.map((name) => ({ schema: 'public', name }));

describe('ensurePublications', () => {
  it.each(embeddedVersions)('never makes an UPDATE on the source fail (%i)', async (version) => {
    await using database = await createDatabase(await sharedServer(version), 'pub');
    await database.run(`
      create table keyed (id int primary key, v int); create table full_row (v int); alter table full_row replica identity full;
      create table bare (v int); create table nothing (id int primary key, v int); alter table nothing replica identity nothing;
      create table by_index (u int not null unique, v int); alter table by_index replica identity using index by_index_u_key;
      create table deferred (id int primary key deferrable, v int);
      create unlogged table fast (id int primary key, v int);
      create table parted (id int, v int) partition by range (id); create table parted_1 partition of parted (primary key (id)) for values from (0) to (10); create table parted_2 partition of parted for values from (10) to (20);
      insert into keyed values (1, 1); insert into full_row values (1); insert into bare values (1); insert into nothing values (1, 1); insert into by_index values (1, 1); insert into deferred values (1, 1); insert into fast values (1, 1); insert into parted values (1, 1), (11, 1)`);
    const session = await database.session();
    const all = tables('keyed', 'full_row', 'bare', 'nothing', 'by_index', 'deferred', 'fast', 'parted');
    const made = await ensurePublications(session, { job: 'p', tables: all });
    expect(made).toEqual({ names: ['pgweave_p', 'pgweave_p_inserts'], insertsOnly: tables('bare', 'deferred', 'nothing', 'parted'), unlogged: tables('fast') });
    for (const { name } of all) {
      await session.query(`update ${name} set v = v + 1`);
      await session.query(`delete from ${name}`);
    }
    // Again with fewer tables and another identity: brought to what is listed.
    await session.query('alter table bare replica identity full');
    expect(await ensurePublications(session, { job: 'p', tables: tables('keyed', 'bare') })).toEqual({ names: ['pgweave_p'], insertsOnly: [], unlogged: [] });
    expect(await session.query('select pubname::text, tablename::text from pg_publication_tables order by 2')).toEqual([{ pubname: 'pgweave_p', tablename: 'bare' }, { pubname: 'pgweave_p', tablename: 'keyed' }]);
    await dropPublications(session, 'p');
    expect(await session.query('select 1 from pg_publication')).toEqual([]);
  });

  it('refuses a publication of that name that is somebody else\'s, and changes nothing', async () => {
    await using database = await createDatabase(await sharedServer(16), 'pub');
    await database.run('create table a (id int primary key); create table b (id int primary key); create publication pgweave_p for table a');
    const session = await database.session();
    await expect(ensurePublications(session, { job: 'p', tables: tables('b') })).rejects.toMatchObject({ code: 'publication-not-ours' });
    await dropPublications(session, 'p');
    expect(await session.query('select tablename::text from pg_publication_tables')).toEqual([{ tablename: 'a' }]);
  });
});
