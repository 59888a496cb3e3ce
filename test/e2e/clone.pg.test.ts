import { describe, expect, it } from 'vitest';
import { clone, planClone } from '../../src/workflows/clone.ts';
import { rowDigests, schemaText } from '../support/database-contents.ts';
import { dropSinkRoles, kitchenSink } from '../support/kitchen-sink.ts';
import { createDatabase, embeddedVersions, sharedServer, type EmbeddedVersion } from '../support/servers.ts';

/** A small shop with what most often goes wrong between versions: identity, generated columns, enum, arrays, partitions, inheritance, a view, a sequence of its own. */
const smallShop = `
  create type mood as enum ('sad', 'it''s ok');
  create table customer (id int generated always as identity primary key, name text not null, m mood default 'sad', tags text[], loud text generated always as (upper(name)) stored);
  create table "Order" (id bigserial primary key, customer int references customer (id) on delete cascade, amount numeric(12, 3), at timestamptz, doc jsonb, raw bytea, span int4range);
  create index on "Order" (customer, at desc);
  create table event (at date not null, what text) partition by range (at);
  create table event_2023 partition of event for values from ('2023-01-01') to ('2024-01-01');
  create table event_rest partition of event default;
  create index on event (at);
  create table parent (a int); create table child (b int) inherits (parent);
  create table nothing (); create unlogged table scratch (x int);
  create sequence lonely increment -3 start 100 minvalue -1000 maxvalue 200;
  create view big as select * from "Order" where amount > 10;
  create materialized view totals as select customer, sum(amount) from "Order" group by 1;
  insert into customer (name, m, tags) select 'name ' || i, case when i % 2 = 0 then 'it''s ok'::mood end, array['a', null, 'b"' || i] from generate_series(1, 50) i;
  insert into "Order" (customer, amount, at, doc, raw, span) select 1 + i % 50, i * 1.375, '2024-01-01'::timestamptz + i * interval '1 hour', jsonb_build_object('k', i), decode(md5(i::text), 'hex'), int4range(i, i + 5) from generate_series(1, 400) i;
  insert into event select '2023-06-01'::date + i, 'e' || i from generate_series(1, 300) i;
  insert into parent values (1); insert into child values (2, 3); insert into nothing default values; insert into scratch values (7);
  select nextval('lonely'); refresh materialized view totals;`;

const pairs = embeddedVersions.flatMap((from) => embeddedVersions.map((to): [EmbeddedVersion, EmbeddedVersion] => [from, to]));

describe('clone', () => {
  it.each(pairs)('copies from %i to %i', async (from, to) => {
    await using source = await createDatabase(await sharedServer(from), 'pair');
    await using target = await createDatabase(await sharedServer(to), 'pair');
    await source.run(smallShop);
    const result = await clone({ source: source.spec, target: target.spec, roles: false, jobs: 2 });
    expect(result.warnings).toEqual([]);
    expect(result).toMatchObject({ tables: 8, sequences: 3, resumed: false, alreadyDone: false });
    expect(await rowDigests(target)).toEqual(await rowDigests(source));
    if (from === to) expect(await schemaText(target)).toBe(await schemaText(source));
  });

  it('copies a database of every kind of object whole, and does nothing the second time', async () => {
    const server = await sharedServer(17);
    const target = await createDatabase(server, 'sink');
    const source = await createDatabase(server, 'sink');
    try {
      await source.run(kitchenSink({ version: 17, rolePrefix: 'clone_sink' }));
      const plan = await planClone({ source: source.spec, target: target.spec });
      expect(plan.schemaObjects).toBeGreaterThan(300);
      expect(await target.query(`select from pg_catalog.pg_namespace where nspname = 'pgweave'`)).toEqual([]);
      const result = await clone({ source: source.spec, target: target.spec, splitBytes: 64 * 1024, jobs: 3 });
      expect(result).toMatchObject({ resumed: false, alreadyDone: false, leftOut: [] });
      expect(result.tables).toBe(plan.tables.length);
      expect(result.largeObjects).toBe(plan.largeObjects);
      expect(await rowDigests(target)).toEqual(await rowDigests(source));
      expect(await schemaText(target)).toBe(await schemaText(source));
      expect(await clone({ source: source.spec, target: target.spec })).toMatchObject({ alreadyDone: true, tables: plan.tables.length });
    } finally {
      await target.drop();
      await source.drop();
      await using admin = await createDatabase(server, 'sink_roles');
      await admin.run(dropSinkRoles('clone_sink'));
    }
  });
});
