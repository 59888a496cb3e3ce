import { describe, expect, it } from 'vitest';
import { noRules, parseTableFilter, parseTables } from '../core/selection/rules.ts';
import { tableKey } from '../core/tables.ts';
import { createDatabase, sharedServer } from '../../test/support/servers.ts';
import { resolveDatabases, resolveSelection } from './selection.ts';

describe('selection on the source', () => {
  it.each([14, 18] as const)('checks names, columns, predicates and foreign keys on %i', async (version) => {
    await using database = await createDatabase(await sharedServer(version), 'select');
    await database.run(`
      create schema "Odd.S"; create table "Odd.S"."T""x" (id int primary key, "when" date);
      create table orders (id int primary key, status text, at timestamptz, "Größe" int);
      create table items (id int primary key, order_id int constraint items_order references orders);
      create table events (id int, at timestamptz) partition by range (id); create table events_1 partition of events for values from (0) to (10);
      create function wobble(int) returns int language sql volatile as 'select $1'; create function steady(int) returns int language sql immutable as 'select $1';`);
    await using session = await database.session();
    await session.query(`set search_path = ''`);
    const filter = (text: string) => resolveSelection(session, { ...noRules, tableFilters: [parseTableFilter(text)] });
    const { selection, doubtfulForeignKeys } = await filter(`orders:"Größe" > 3 and public.steady(id) = 1 and status <> 'today' and at > '2026-01-01'`);
    expect(selection.get(tableKey({ schema: 'public', name: 'orders' }))?.where).toContain('"Größe" > 3');
    expect(doubtfulForeignKeys).toMatchObject([{ name: 'items_order', reason: 'filtered' }]);
    expect(selection.get(tableKey({ schema: 'Odd.S', name: 'T"x' }))?.mode).toBe('copy');
    expect((await filter('events:id > 3')).selection.get(tableKey({ schema: 'public', name: 'events_1' }))?.where).toBe('(id > 3)');
    for (const [text, why, hint] of [
      ['orders:stauts = 1', 'the source refuses', 'status'], ['orders:id + 1', 'the source refuses', ''], ['orders:public.wobble(id) = 1', 'is volatile', 'immutable'], ['orders:random() > 0.5', 'is volatile', 'immutable'], ['orders:at > \'today\'', 'current moment', '--time-filter'], ['orders:at > now()', 'current moment', '--time-filter'],
      ['orders:id = \'x\'', 'the source refuses', ''], ['orders:steady(id) = 1', 'the source refuses', 'need their schema'], ['ordesr:true', 'no such table', 'public.orders'], ['orders:count(id) > 1', 'the source refuses', ''], ['orders:orders is not null', 'the whole row', 'names the columns'],
    ] as const) {
      const fault = await filter(text).then(() => undefined, (error: unknown) => error);
      expect(fault).toMatchObject({ exitCode: 2, message: expect.stringContaining(why) });
      expect(String((fault as { hint?: string }).hint)).toContain(hint);
    }
    await expect(resolveSelection(session, { ...noRules, excludeTables: parseTables('orders') })).rejects.toMatchObject({ message: expect.stringContaining('items_order') });
    expect(await resolveDatabases(session, noRules)).toEqual([database.name]);
  });
});
