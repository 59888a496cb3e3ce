import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseConfig } from '../config.ts';
import { JobFolder } from '../job-folder.ts';
import { tableKey } from '../tables.ts';
import { databasesOfJob, selectDatabases } from './databases.ts';
import { danglingForeignKeys, refuseDanglingForeignKeys } from './foreign-keys.ts';
import { jobConfigOf } from './job-config.ts';
import { keepRules } from './kept.ts';
import { partMatches, splitList } from './names.ts';
import { parsePredicate } from './predicate.ts';
import { fixTimeWindows, mergeRules, noRules, parseColumns, parseDatabases, parseMap, parseTableFilter, parseTables, parseTimeFilter, type SelectionRules } from './rules.ts';
import { matchTables, rulesForDatabase, selectTables, type SelectableTable } from './select.ts';
import { momentBefore, parseTimeSpan } from './windows.ts';

const table = (schema: string, name: string, more: Partial<SelectableTable> = {}): SelectableTable => ({ schema, name, ...more });
const shop: SelectableTable[] = [
  table('public', 'orders', { columns: [{ name: 'id', type: 'bigint' }, { name: 'created_at', type: 'timestamp with time zone' }, { name: 'note', type: 'text' }], keyColumns: ['id'] }),
  table('public', 'items'), table('audit', 'orders'), table('audit', 'log'), table('Odd.Schema', 'Tä"ble, one'),
  table('public', 'events'), table('public', 'events_1', { partitionOf: { schema: 'public', name: 'events' } }), table('public', 'events_2', { partitionOf: { schema: 'public', name: 'events' } }),
];
const rules = (more: Partial<SelectionRules>): SelectionRules => ({ ...noRules, ...more });
const modes = (r: SelectionRules, tables = shop) => Object.fromEntries([...selectTables(r, 'shop', tables).values()].map((s) => [`${s.table.schema}.${s.table.name}`, s.mode]));
const chosen = (r: SelectionRules) => Object.entries(modes(r)).filter(([, mode]) => mode === 'copy').map(([name]) => name);

describe('names of tables', () => {
  it('means public where no schema is given, and the database or the schema by what is there', () => {
    expect(chosen(rules({ includeTables: parseTables('orders') }))).toEqual(['public.orders']);
    expect(chosen(rules({ includeTables: parseTables('audit.orders') }))).toEqual(['audit.orders']);
    expect(chosen(rules({ includeTables: parseTables('shop.orders') }))).toEqual(['public.orders']);
    expect(chosen(rules({ includeTables: parseTables('shop.audit.orders,shop.items') }))).toEqual(['public.items', 'audit.orders']);
    expect(chosen(rules({ includeTables: parseTables('audit.*') }))).toEqual(['audit.orders', 'audit.log']);
  });

  it('takes quoted names with dots, commas, quotes and other letters', () => {
    expect(chosen(rules({ includeTables: parseTables('"Odd.Schema"."Tä""ble, one", items') }))).toEqual(['public.items', 'Odd.Schema.Tä"ble, one']);
    expect(splitList('a, "b,c".d ,,e')).toEqual(['a', '"b,c".d', 'e']);
    expect(partMatches({ text: 'a*b*c', quoted: false }, 'a__b_bc')).toBe(true);
    expect(partMatches({ text: 'a*a', quoted: false }, 'a')).toBe(false);
    expect(partMatches({ text: 'a*', quoted: true }, 'ab')).toBe(false);
  });

  it.each(['"open', 'a..b', '.a', 'a.b.c.d', '"a"b'])('refuses %s', (text) => {
    expect(() => parseTables(text)).toThrow(/not a table name/);
  });

  it('proposes the nearest names for one that matches nothing, and does not choose between two meanings', () => {
    const fault = (r: SelectionRules, tables = shop) => {
      try {
        selectTables(r, 'shop', tables);
      } catch (error) {
        return error as { message: string; hint: string; exitCode: number };
      }
      throw new Error('not refused');
    };
    expect(fault(rules({ excludeTables: parseTables('ordres') }))).toMatchObject({ message: expect.stringContaining('--exclude-tables names ordres'), hint: expect.stringContaining('public.orders'), exitCode: 2 });
    expect(fault(rules({ schemaOnlyTables: parseTables('log') })).hint).toContain('audit.log');
    expect(fault(rules({ schemaOnlyTables: parseTables('shop.evnets') })).hint).toContain('public.events');
    expect(fault(rules({ schemaOnlyTables: parseTables('"Odd.Schema"."Tä""ble, on"') })).hint).toContain('"Odd.Schema"."Tä""ble, one"');
    expect(fault(rules({ schemaOnlyTables: parseTables('shpo.public.orders') }))).toMatchObject({ message: expect.stringContaining('database "shpo" is not part of the job'), hint: 'Nearest to "shpo": shop.' });
    expect(fault(rules({ includeTables: parseTables('Orders') })).hint).toContain('public.orders');
    expect(fault(rules({ includeTables: parseTables('othr.orders') })).message).toContain('no such table');
    expect(fault(rules({ includeTables: parseTables('shop.orders') }), [...shop, table('shop', 'orders')]).message).toContain('can mean the schema');
    expect(fault(rules({ timeFilters: [{ ...parseTimeFilter('orders:creatd_at:1 day'), since: 'x' }] })).hint).toContain('created_at');
    expect(fault(rules({ timeFilters: [{ ...parseTimeFilter('orders:note:1 day'), since: 'x' }] })).message).toContain('of type text');
    expect(fault(rules({ excludeColumns: parseColumns('orders.id') })).message).toContain('primary key');
    expect(fault(rules({ excludeTables: parseTables('orders'), tableFilters: [parseTableFilter('orders:true')] })).message).toContain('left out');
    expect(fault(rules({ maps: [parseMap('audit.orders=orders')] })).message).toContain('would both become public.orders');
    expect(fault(rules({ excludeTables: parseTables('*,*.*') })).message).toContain('every table');
  });

  it('lets a name of another database of the job pass here', () => {
    const r = rules({ includeTables: parseTables('crm.people') });
    expect(matchTables(r, { database: 'shop', databases: ['shop', 'crm'] }, shop).unmatched).toEqual([]);
    expect(matchTables(r, { database: 'crm', databases: ['shop', 'crm'] }, shop).unmatched).toHaveLength(1);
    expect(() => selectTables(r, 'shop', shop)).toThrow(/crm\.people/);
  });
});

describe('rules of one database of several', () => {
  it('keep what concerns it, in names that need no database', () => {
    const r = rules({ allDatabases: true, includeTables: parseTables('shop.orders,audit.orders,crm.people,items'), excludeTables: parseTables('crm.public.x,shop.audit.log,nothing'), tableFilters: [parseTableFilter('orders:true'), parseTableFilter('crm.orders:false')] });
    const local = rulesForDatabase(r, { database: 'shop', databases: ['shop', 'crm'] }, shop);
    expect(local.allDatabases).toBe(false);
    expect(local.excludeTables).toHaveLength(1);
    expect(local.tableFilters.map((f) => f.where)).toEqual(['true']);
    // The same tables as with all the rules, without knowing of the other database.
    expect(selectTables(local, 'shop', shop)).toEqual(matchTables(r, { database: 'shop', databases: ['shop', 'crm'] }, shop).selection);
  });
});

describe('what becomes of a table', () => {
  it('carries filters, windows, columns and names', () => {
    const r = fixTimeWindows(rules({
      tableFilters: [parseTableFilter('orders:id > 7 and note <> \':\'')], timeFilters: [parseTimeFilter('orders:created_at:6 months')], excludeColumns: parseColumns('orders.note,shop.public.orders.created_at'), maps: [parseMap('audit.orders=archive."Old.Orders"')],
    }), new Date('2026-08-31T10:20:30.123Z'));
    const selection = selectTables(r, 'shop', shop);
    expect(selection.get(tableKey({ schema: 'public', name: 'orders' }))).toEqual({
      table: { schema: 'public', name: 'orders' }, mode: 'copy', where: '((id > 7 and note <> \':\') and ("created_at" >= \'2026-02-28 10:20:30+00\'))', excludeColumns: ['created_at', 'note'], mapTo: { schema: 'public', name: 'orders' },
    });
    expect(selection.get(tableKey({ schema: 'audit', name: 'orders' }))?.mapTo).toEqual({ schema: 'archive', name: 'Old.Orders' });
  });

  it('lets partitions share the fate and the filters of their root, and gives a chosen partition its frame', () => {
    expect(modes(rules({ excludeTables: parseTables('events') }))).toMatchObject({ 'public.events': 'skip', 'public.events_1': 'skip', 'public.items': 'copy' });
    expect(modes(rules({ excludeTables: parseTables('events_2') }))).toMatchObject({ 'public.events': 'copy', 'public.events_1': 'copy', 'public.events_2': 'skip' });
    expect(modes(rules({ includeTables: parseTables('events_2') }))).toMatchObject({ 'public.events': 'schema-only', 'public.events_1': 'skip', 'public.events_2': 'copy' });
    expect(modes(rules({ schemaOnlyTables: parseTables('events'), includeTables: parseTables('items') }))).toMatchObject({ 'public.events_1': 'schema-only', 'public.items': 'copy', 'public.orders': 'skip' });
    const filtered = selectTables(rules({ tableFilters: [parseTableFilter('events:a > 1'), parseTableFilter('events_1:b > 1')] }), 'shop', shop);
    expect(filtered.get(tableKey({ schema: 'public', name: 'events_1' }))?.where).toBe('((a > 1) and (b > 1))');
    expect(filtered.get(tableKey({ schema: 'public', name: 'events_2' }))?.where).toBe('(a > 1)');
  });

  it('finds foreign keys into what is left out', () => {
    const keys = [{ name: 'items_order', table: { schema: 'public', name: 'items' }, references: { schema: 'public', name: 'orders' } }];
    const of = (r: SelectionRules) => danglingForeignKeys(selectTables(r, 'shop', shop), keys).map((k) => k.reason);
    expect(of(noRules)).toEqual([]);
    expect(of(rules({ excludeTables: parseTables('orders') }))).toEqual(['missing']);
    expect(of(rules({ schemaOnlyTables: parseTables('orders') }))).toEqual(['empty']);
    expect(of(rules({ tableFilters: [parseTableFilter('orders:id > 1')] }))).toEqual(['filtered']);
    expect(of(rules({ excludeTables: parseTables('orders,items') }))).toEqual([]);
    expect(() => refuseDanglingForeignKeys(selectTables(rules({ excludeTables: parseTables('orders') }), 'shop', shop), keys)).toThrow(/public\.items refers to public\.orders \(items_order\)/);
  });
});

describe('time windows', () => {
  it.each([['6 months', '2026-02-28 10:00:00+00'], ['1 year', '2025-08-31 10:00:00+00'], ['90d', '2026-06-02 10:00:00+00'], ['30 min', '2026-08-31 09:30:00+00'], ['2 weeks', '2026-08-17 10:00:00+00'], ['45s', '2026-08-31 09:59:15+00'], ['18 months', '2025-02-28 10:00:00+00']])('%s', (text, moment) => {
    expect(momentBefore(parseTimeSpan(text), new Date('2026-08-31T10:00:00Z'))).toBe(moment);
  });

  it.each(['6', 'months', '0 days', '-1 day', '3 fortnights', '5m', '1.5 hours', '9999 years'])('refuses %s', (text) => {
    expect(() => momentBefore(parseTimeSpan(text), new Date('2026-08-31T10:00:00Z'))).toThrow(expect.objectContaining({ exitCode: 2 }));
  });
});

describe('databases', () => {
  const there = ['crm', 'postgres', 'rdsadmin', 'shop', 'template0', 'template1'].map((name) => ({ name, isTemplate: name.startsWith('template'), allowsConnections: name !== 'template0' }));
  it('leaves templates and maintenance databases out unless they are named', () => {
    expect(selectDatabases(noRules, there, 'shop')).toEqual(['shop']);
    expect(selectDatabases(rules({ allDatabases: true }), there, 'shop')).toEqual(['crm', 'shop']);
    expect(selectDatabases(rules({ allDatabases: true, excludeDatabases: parseDatabases('crm') }), there, 'shop')).toEqual(['shop']);
    expect(selectDatabases(rules({ includeDatabases: parseDatabases('postgres,c*') }), there, 'shop')).toEqual(['crm', 'postgres']);
    expect(() => selectDatabases(rules({ includeDatabases: parseDatabases('shpo') }), there, 'shop')).toThrow(expect.objectContaining({ hint: 'Did you mean "shop"?' }));
    expect(() => selectDatabases(rules({ includeDatabases: parseDatabases('template0') }), there, 'shop')).toThrow(/takes no connections/);
    expect(() => selectDatabases(rules({ excludeDatabases: parseDatabases('*') }), there, 'shop')).toThrow(/every database/);
    expect(databasesOfJob(rules({ includeDatabases: parseDatabases('s*,postgres') }), ['crm', 'postgres', 'shop'])).toEqual(['postgres', 'shop']);
    expect(() => databasesOfJob(rules({ excludeDatabases: parseDatabases('shpo') }), ['crm', 'shop'])).toThrow(expect.objectContaining({ exitCode: 2, hint: 'Did you mean "shop"?' }));
  });
});

describe('row filters', () => {
  it('says what a filter reads', async () => {
    expect(await parsePredicate(`"Odd col" > 3 and lower(name) in ('a', 'today') -- remark`)).toMatchObject({ columns: ['Odd col', 'name'], functions: ['lower'], movingWords: ['today'] });
  });

  it.each([
    ['true; drop table orders', 'more than one statement'], ['1) or (1', 'not valid SQL'], ['a, b', 'not one expression'], ['a from t', 'more than an expression'], ['a as b', 'not one expression'], ['id in (select 1)', 'a subquery'], ['exists (select 1)', 'a subquery'], ['true union select true', 'more than an expression'],
    ['created_at > now() - interval \'1 day\'', 'current moment'], ['d = current_date', 'current moment'], ['u = current_user', 'who asks'], ['count(*) > 1', 'an aggregate'], ['row_number() over () = 1', 'a window function'], ['$1 = 1', 'a parameter'], ['orders.id = 1', 'with its table'], ['*', 'not valid SQL'], ['ctid = \'(0,1)\'', 'the system column ctid'], ['', 'is empty'], ['id >', 'not valid SQL'], ['true group by 1', 'more than an expression'],
  ])('refuses %s', async (text, why) => {
    await expect(parsePredicate(text)).rejects.toMatchObject({ exitCode: 2, message: expect.stringContaining(why) });
  });
});

describe('configuration file', () => {
  const toml = `
all_databases = true
[databases.shop]
schema_only = ["audit.log", "items"]
exclude_columns = ["orders.note"]
map = { "audit.orders" = "archive.orders" }
[[databases.shop.table_filters]]
table = "orders"
where = "id > 1"
[[databases.shop.time_filters]]
table = "events"
schema = "audit"
column = "at"
last = "6 months"
`;
  const yaml = `all_databases: true
databases:
  shop:
    schema_only: [audit.log, {table: items}]
    exclude_columns: orders.note
    map: {audit.orders: archive.orders}
    table_filters: [{table: orders, where: id > 1}]
    time_filters:
      - {table: audit.events, column: at, last: 6 months}
`;
  it('means the same in TOML, YAML and JSON', () => {
    const fromToml = jobConfigOf(parseConfig(toml, 'job.toml', 'toml')).rules;
    const fromYaml = jobConfigOf(parseConfig(yaml, 'job.yaml', 'yaml')).rules;
    const fromJson = jobConfigOf(parseConfig(JSON.stringify({ all_databases: true, databases: { shop: { schema_only: ['audit.log', 'items'], exclude_columns: ['orders.note'], map: { 'audit.orders': 'archive.orders' }, table_filters: [{ table: 'orders', where: 'id > 1' }], time_filters: [{ table: 'events', schema: 'audit', column: 'at', last: '6 months' }] } } }), 'job.json', 'json')).rules;
    const plain = (r: SelectionRules) => JSON.parse(JSON.stringify(r).replaceAll('"quoted":false', '"quoted":true')) as unknown;
    expect(plain(fromYaml)).toEqual(plain(fromToml));
    expect(plain(fromJson)).toEqual(plain(fromToml));
    expect(modes(mergeRules(rules({ schemaOnlyTables: fromToml.schemaOnlyTables }), rules({ excludeTables: parseTables('orders') })))).toMatchObject({ 'audit.log': 'schema-only', 'public.items': 'schema-only', 'public.orders': 'skip' });
  });

  it.each([
    ['yaml', 'databases:\n  shop:\n    schema_onyl: [a]\n', 'line 3: unknown key "schema_onyl" in databases.shop', 'schema_only'],
    ['toml', '[databases.shop]\nschema_onyl = ["a"]\n', 'line 2: unknown key "schema_onyl"', 'schema_only'],
    ['toml', '[[databases.shop.table_filters]]\ntable = "a"\nwehre = "b"\n', 'line 3: unknown key "wehre" in databases.shop.table_filters[1]', 'where'],
    ['json', '{\n "inculde_tables": []\n}', 'line 2: unknown key "inculde_tables"', 'include_tables'],
    ['yaml', 'databases:\n  shop:\n    time_filters:\n      - table: a\n        column: b\n', 'line 4: databases.shop.time_filters[1].last', undefined],
    ['yaml', 'all_databases: perhaps\n', 'line 1: all_databases: expected boolean', undefined],
    ['yaml', 'databases:\n  shop: 3\n', 'line 2: databases.shop: expected object or null', undefined], ['toml', 'map = ["a"]\n', 'line 1: map: expected object, received array', undefined],
    ['yaml', 'databases:\n  shop:\n    time_filters:\n      - table: a\n        column: b\n        last: 6 fortnights\n', 'line 6: databases.shop.time_filters[1].last: not a time span: "6 fortnights"', undefined],
    ['yaml', '- a\n', 'expected object', undefined],
    ['toml', 'a = \n', 'line 1: not valid TOML', undefined], ['yaml', 'a: [\n', 'line 2: not valid YAML', undefined], ['json', '{\n"a": 1,}', 'line 2: not valid JSON', undefined],
    ['toml', '[databases.shop]\nschema_only = ["crm.public.a"]\n', 'stands under the database "shop"', undefined],
  ] as const)('%s: refuses %j', (format, text, message, near) => {
    let fault: { message: string; hint?: string; exitCode: number } | undefined;
    try {
      jobConfigOf(parseConfig(text, `job.${format}`, format));
    } catch (error) {
      fault = error as typeof fault;
    }
    expect(fault).toMatchObject({ exitCode: 2, message: expect.stringContaining(message) });
    expect(fault?.message).toContain(`job.${format}`);
    expect(fault?.hint ?? '').toContain(near === undefined ? '' : `"${near}"`);
  });
});

describe('rules kept with the job', () => {
  it('fixes windows once, and notices another selection', () => {
    const path = mkdtempSync(join(tmpdir(), 'pgweave-rules-'));
    try {
      const folder = new JobFolder('shop', path);
      const given = rules({ timeFilters: [parseTimeFilter('orders:created_at:1 day')] });
      const first = keepRules(folder, given, { now: new Date('2026-01-02T00:00:00Z') });
      expect(first.timeFilters[0]?.since).toBe('2026-01-01 00:00:00+00');
      expect(keepRules(folder, given, { now: new Date('2026-03-01T00:00:00Z') })).toEqual(first);
      expect(keepRules(folder, noRules)).toEqual(first);
      expect(() => keepRules(folder, mergeRules(given, rules({ excludeTables: parseTables('a') })))).toThrow(expect.objectContaining({ code: 'selection-changed', message: expect.stringContaining('without table a'), hint: expect.stringContaining('--no-resume') }));
      expect(JSON.parse(readFileSync(folder.file('selection.json'), 'utf8'))).toMatchObject({ rules: { timeFilters: [{ since: '2026-01-01 00:00:00+00' }] } });
      expect(keepRules(folder, given, { startOver: true, now: new Date('2026-03-01T00:00:00Z') }).timeFilters[0]?.since).toBe('2026-02-28 00:00:00+00');
    } finally {
      rmSync(path, { recursive: true, force: true });
    }
  });
});
