import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { PgweaveError } from '../core/errors.ts';
import { subscriptionName } from './names.ts';
import { conninfoForNodes, nodeNamed, parseNodes, readNodes, withAddressesForNodes } from './nodes.ts';
import { formatPath } from './read-file.ts';
import { parseSchema, readSchema, type SchemaInput } from './schema-input.ts';

const folder = mkdtempSync(join(tmpdir(), 'mesh-inputs-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function faults(work: () => unknown): string[] {
  try {
    work();
  } catch (error) {
    if (!(error instanceof PgweaveError)) throw error;
    expect(error.exitCode).toBe(2);
    const found = error.details['faults'] as { path: string; message: string }[] | undefined;
    return found ? found.map((f) => `${f.path}: ${f.message}`) : [error.message];
  }
  return [];
}

const node = { name: 'a', host: 'h', db: 'd', user: 'u' };

describe('nodes', () => {
  it('defaults, and passwords from either variable before the file\'s', () => {
    expect(parseNodes([{ ...node, password: 'pw-of-the-file' }], { env: {} })).toMatchObject([{ id: 1, port: 5432, external: false, password: 'pw-of-the-file' }]);
    expect(parseNodes([{ ...node, password: 'pw-of-the-file' }], { env: { PGCONVERGE_A_PASSWORD: 'old' } })[0]!.password).toBe('old');
    expect(parseNodes([{ ...node, password: 'pw-of-the-file' }], { env: { PGCONVERGE_A_PASSWORD: 'old', PGWEAVE_A_PASSWORD: 'new' } })[0]).toMatchObject({ password: 'new', passwordInFile: 'pw-of-the-file' });
  });

  it.each([
    ['a name that is none', [{ ...node, name: '1a' }], '[0].name: must begin with a letter'],
    ['a name too long for sub_a_from_b', [{ ...node, name: 'a'.repeat(27) }], '[0].name: is longer than 26'],
    ['two nodes of one name', [node, { ...node, host: 'other' }], '[1].name: "a" is the name of node [0] too'],
    ['names that differ in case alone', [node, { ...node, name: 'A', host: 'other' }], '(case does not count)'],
    ['one database twice', [node, { ...node, name: 'b' }], '[1].host: h:5432/d is the database of node [0] too'],
    ['one number twice', [{ ...node, id: 2 }, { ...node, name: 'b', host: 'x' }], '[1].id: 2 is the number of node [0] too'],
    ['a port out of range', [{ ...node, port: 70_000 }], '[0].port: must be 1 to 65535'],
    ['a misspelt field', [{ ...node, hots: 'x' }], 'hots'],
    ['a missing field', [{ name: 'a', host: 'h', db: 'd' }], '[0].user'],
    ['no list', { a: node }, 'must be a list'],
    ['an empty list', [], 'names no node'],
  ])('%s', (_what, input, want) => {
    expect(faults(() => parseNodes(input, { env: {} })).join('\n')).toContain(want);
  });

  it('addresses for nodes', () => {
    const nodes = parseNodes([node, { ...node, name: 'b', host: 'h2', port: 5433, password: `it's` }], { env: {} });
    expect(withAddressesForNodes(nodes, 'compose').map((n) => `${n.hostForNodes}:${n.portForNodes}`)).toEqual(['a:5432', 'b:5432']);
    expect(withAddressesForNodes(nodes, '10.0.0.9').map((n) => n.hostForNodes)).toEqual(['10.0.0.9', '10.0.0.9']);
    expect(withAddressesForNodes(nodes, 'b=[fd00::1]:6000')[1]).toMatchObject({ hostForNodes: 'fd00::1', portForNodes: 6000 });
    expect(faults(() => withAddressesForNodes(nodes, 'c=x'))[0]).toContain('there is no node "c"');
    expect(faults(() => withAddressesForNodes(nodes, 'b=x:y'))[0]).toContain('cannot read');
    expect(conninfoForNodes(nodes[1]!)).toContain(`password='it\\'s'`);
    expect(faults(() => nodeNamed(nodes, 'z'))[0]).toContain('there are a, b');
  });

  it('JSON and YAML files; faults name the file and the line', () => {
    const yaml = join(folder, 'nodes.yaml');
    writeFileSync(yaml, '- {name: a, host: h, db: d, user: u}\n- {name: b, host: h2, db: d, user: u, port: 5433}\n');
    expect(readNodes(yaml, {}).map((n) => n.port)).toEqual([5432, 5433]);
    const broken = join(folder, 'broken.yml');
    writeFileSync(broken, '- name: a\n  host: [\n');
    expect(faults(() => readNodes(broken, {}))[0]).toMatch(/broken\.yml, line \d+ is not YAML/);
    const json = join(folder, 'nodes.json');
    writeFileSync(json, '[{]');
    expect(faults(() => readNodes(json, {}))[0]).toContain('is not JSON');
    expect(faults(() => readNodes(join(folder, 'none.json'), {}))[0]).toContain('there is no file');
  });

  it('slots are in lower case', () => {
    expect(subscriptionName('London', 'mumbai')).toBe('sub_london_from_mumbai');
    expect(formatPath(['users', 'columns', 'a b', 0])).toBe('users.columns["a b"][0]');
  });
});

const users: SchemaInput = { users: { columns: { id: { data_type: 'serial' }, email: { data_type: 'text' } }, constraints: { primary: ['id'], unique: [['email']] } } };
const child = (references: { table: string | string[]; columns: string[] }, extra = {}): SchemaInput => ({ orders: { columns: { id: { data_type: 'bigserial' }, user_id: { data_type: 'int' }, ...extra }, constraints: { primary: ['id'], foreign_keys: [{ columns: ['user_id'], references }] } } });

describe('tables', () => {
  it('serial keys become uuid, and so do foreign keys into them, through any number of tables; referenced tables come first', () => {
    const tables = parseSchema({
      items: { columns: { order_id: { data_type: 'bigint' }, n: { data_type: 'int' } }, constraints: { primary: ['order_id', 'n'], foreign_keys: [{ columns: ['order_id'], references: { table: ['orders'], columns: ['id'] } }] } },
      notes: { columns: { id: { data_type: 'int' }, o: { data_type: 'int' }, n: { data_type: 'int' } }, constraints: { primary: ['id'], foreign_keys: [{ columns: ['o', 'n'], references: { table: 'items', columns: ['order_id', 'n'] } }] } },
      ...child({ table: ['users'], columns: ['id'] }), ...users,
    });
    expect(tables.map((t) => t.name)).toEqual(['users', 'orders', 'items', 'notes']);
    const type = (table: string, column: string) => tables.find((t) => t.name === table)!.columns.find((c) => c.name === column)!;
    expect(type('users', 'id')).toMatchObject({ type: 'uuid', default: 'gen_random_uuid()' });
    expect(type('orders', 'user_id')).toMatchObject({ type: 'uuid', default: undefined });
    expect(type('items', 'order_id').type).toBe('uuid');
    expect(type('notes', 'o').type).toBe('uuid');
    expect(type('notes', 'id').type).toBe('int');
  });

  it('lists may be null, as programs write them; names that end a quoted function are refused', () => {
    const table = (over: object) => ({ t: { columns: { id: { data_type: 'int' } }, constraints: { primary: ['id'], unique: null, foreign_keys: null, checks: null }, indexes: null, ...over } });
    expect(parseSchema(table({}))[0]).toMatchObject({ uniques: [], foreignKeys: [], checks: [], indexes: [] });
    expect(() => parseSchema(table({ name: 'x$mesh$y' }))).toThrow('t.name: holds $mesh$');
    expect(() => parseSchema(table({ columns: { id: { data_type: 'int' }, 'a$mesh$': { data_type: 'int' } } }))).toThrow('the name holds a NUL byte or $mesh$');
  });

  it('a table may refer to itself', () => {
    const [table] = parseSchema({ tree: { columns: { id: { data_type: 'serial' }, up: { data_type: 'int' } }, constraints: { primary: ['id'], foreign_keys: [{ columns: ['up'], references: { table: 'tree', columns: ['id'] } }] } } });
    expect(table!.columns.map((c) => [c.type, c.default])).toEqual([['uuid', 'gen_random_uuid()'], ['uuid', undefined]]);
  });

  const simple = { columns: { id: { data_type: 'int' }, a: { data_type: 'text' } }, constraints: { primary: ['id'] } };
  it.each<[string, unknown, string]>([
    ['an unknown table in a foreign key', child({ table: ['nobody'], columns: ['id'] }), 'orders.constraints.foreign_keys[0].references.table: there is no table "nobody"'],
    ['an unknown column in a foreign key', { ...users, ...child({ table: 'users', columns: ['idd'] }) }, 'orders.constraints.foreign_keys[0].references.columns[0]: there is no column "idd" in table users'],
    ['a foreign key to no key', { ...child({ table: 'users', columns: ['id'] }), users: { columns: { id: { data_type: 'int' }, k: { data_type: 'int' } }, constraints: { primary: ['k'] } } }, '(id) is not a key of table users'],
    ['foreign keys in a circle', {
      a: { columns: { id: { data_type: 'int' }, b: { data_type: 'int' } }, constraints: { primary: ['id'], foreign_keys: [{ columns: ['b'], references: { table: 'b', columns: ['id'] } }] } },
      b: { columns: { id: { data_type: 'int' }, a: { data_type: 'int' } }, constraints: { primary: ['id'], foreign_keys: [{ columns: ['a'], references: { table: 'a', columns: ['id'] } }] } },
    }, 'the foreign keys go in a circle: a → b → a'],
    ['a table name over 63 bytes', { ['é'.repeat(32)]: simple }, 'is 64 bytes long; PostgreSQL cuts names after 63'],
    ['a column name over 63 bytes', { t: { columns: { id: { data_type: 'int' }, ['c'.repeat(64)]: { data_type: 'int' } }, constraints: { primary: ['id'] } } }, 'longer than 63 bytes'],
    ['a partial unique key', { t: { ...simple, constraints: { primary: ['id'], unique: [{ columns: ['a'], where: 'a > 1' }] } } }, 't.constraints.unique[0]: must be a list of column names; partial, expression'],
    ['a key column that is not there', { t: { ...simple, constraints: { primary: ['idd'] } } }, 't.constraints.primary[0]: there is no column "idd" in table t'],
    ['no primary key', { t: { columns: { id: { data_type: 'int' } }, constraints: {} } }, 't.constraints.primary'],
    ['a counter of text', { t: { ...simple, crdt: { columns: { a: { type: 'pn_counter' } } } } }, 'a counter must be smallint, integer, bigint or numeric; "a" is text'],
    ['a counter in a key', { t: { columns: { id: { data_type: 'int' }, n: { data_type: 'int' } }, constraints: { primary: ['id'], unique: [['n']] }, crdt: { columns: { n: { type: 'pn_counter' } } } } }, 'the counter "n" cannot be part of a key'],
    ['an unknown crdt type', { t: { ...simple, crdt: { columns: { a: { type: 'gset' } } } } }, 't.crdt.columns.a.type: must be lww_field or pn_counter'],
    ['a serial in a unique key', { t: { columns: { id: { data_type: 'int' }, n: { data_type: 'serial' } }, constraints: { primary: ['id'], unique: [['n']] } } }, 'would collide between nodes'],
    ['a json key', { t: { columns: { id: { data_type: 'json' } }, constraints: { primary: ['id'] } } }, 'columns of type json cannot be unique'],
    ['a type that smuggles SQL', { t: { columns: { id: { data_type: 'int; drop table x' } }, constraints: { primary: ['id'] } } }, 'is not a type'],
    ['a column of the mesh\'s own name', { t: { columns: { id: { data_type: 'int' }, _mesh_w: { data_type: 'int' } }, constraints: { primary: ['id'] } } }, 'is the mesh\'s own'],
    ['a table in _mesh', { t: { ...simple, schema: '_mesh' } }, 'is not for tables of users'],
    ['no tables', {}, 'holds no table'],
    ['no object', [], 'must be an object of tables'],
  ])('%s is refused by name', (_what, input, want) => {
    expect(faults(() => parseSchema(input)).join('\n')).toContain(want);
  });

  it('names all faults at once, with the file', () => {
    const path = join(folder, 'schema.json');
    writeFileSync(path, JSON.stringify({ t: { columns: { id: { data_type: 'int' } }, constraints: { primary: ['x'], unique: [['y']] } } }));
    expect(() => readSchema(path)).toThrow(/schema\.json: 2 faults\n {2}t\.constraints\.primary\[0\]: .*\n {2}t\.constraints\.unique\[0\]\[0\]: /);
  });
});
