import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execFileSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { composeText, nodeSettings, writeCompose } from './compose.ts';
import { generateSql } from './generate.ts';
import { hbaText } from './hba.ts';
import { maxNameBytes, objectBase } from './names.ts';
import { parseNodes, readNodes } from './nodes.ts';
import { parseSchema, readSchema } from './schema-input.ts';
import { baseType, pinnedSettings, searchPath } from './sql/types.ts';

const example = new URL('../../examples/mesh/', import.meta.url).pathname;
const column = (data_type: string) => ({ data_type });

describe('generated.sql', () => {
  it('is the golden file for the example', async () => {
    await expect(generateSql(readSchema(join(example, 'schema.json')))).toMatchFileSnapshot('./testdata/example.sql');
  });

  it('is the golden file for odd names, counters, unique keys and checks', async () => {
    await expect(generateSql(parseSchema({
      odd: { schema: 'My App', name: 'Ev"il $1\n', columns: { 'K 1': column('int'), k2: column('citext'), v: column('date'), n: column('numeric(8,2)'), g: { data_type: 'int', generated: '"K 1" * 2' } }, constraints: { primary: ['K 1', 'k2'], unique: [['v', 'k2']], checks: ['n > 0'] }, crdt: { columns: { v: { type: 'lww_field' }, n: { type: 'pn_counter' } } } },
    }), { maxDriftMs: 5000 })).toMatchFileSnapshot('./testdata/odd.sql');
  });

  it('is the same for the same input, and one file for all nodes', () => {
    const make = () => generateSql(readSchema(join(example, 'schema.json')));
    expect(make()).toBe(make());
    expect(make()).not.toMatch(/mumbai|frankfurt/);
  });

  it('no name is cut by PostgreSQL, and no two tables share one', () => {
    const tables = ['orders', 'Orders', 'o'.repeat(60), `${'o'.repeat(59)}x`, 'a_b', 'ä ö'].flatMap((name) => [objectBase('public', name), objectBase('a_b', name), objectBase('a', `b_${name}`)]);
    expect(new Set(tables).size).toBe(tables.length);
    for (const base of tables) expect(Buffer.byteLength(`inserted_${base}`)).toBeLessThanOrEqual(maxNameBytes);
  });

  it('type names as people write them', () => {
    expect(baseType('NUMERIC (10, 2) []')).toBe('numeric[]');
    expect(baseType('timestamp(3) with time zone')).toBe('timestamp with time zone');
    expect(pinnedSettings(['int', 'text', 'numeric(1)'])).toEqual([]);
    expect(pinnedSettings(['timestamptz', 'float8'])).toEqual([`datestyle = 'ISO, YMD'`, 'extra_float_digits = 1']);
    expect(searchPath(['int', 'text[]'])).toBe('pg_catalog, pg_temp');
    expect(searchPath(['citext', '"My Types".x'])).toBe('pg_catalog, "My Types", public, pg_temp');
  });
});

describe('docker-compose.yml', () => {
  const nodes = parseNodes([{ name: 'a', host: 'localhost', port: 5441, db: 'd', user: 'u', password: 'p$1' }, { name: 'b', host: 'localhost', port: 5442, db: 'd', user: `o'u` }, { name: 'far', host: '10.1.2.3', db: 'd', user: 'u', external: true }], { env: { PGWEAVE_B_PASSWORD: 'secret-of-b' } });

  it('a service a node, external ones as hosts; the same text each time; no password that only the environment has', () => {
    const text = composeText(nodes);
    expect(text).toBe(composeText(nodes));
    expect(text).not.toContain('secret-of-b');
    const { services, volumes } = parse(text) as { services: Record<string, { environment: Record<string, string>; command?: string[]; extra_hosts?: string[]; ports?: string[] }>; volumes: object };
    expect(Object.keys(services)).toEqual(['a', 'b', 'mesh_maintenance']);
    expect(Object.keys(volumes)).toEqual(['a_data', 'b_data']);
    expect(services['a']).toMatchObject({ extra_hosts: ['far:10.1.2.3'], ports: ['5441:5432'], environment: { PGWEAVE_NODE: 'a', PGWEAVE_NODE_ID: '1', POSTGRES_PASSWORD: '${PGWEAVE_A_PASSWORD:-p$$1}', PGWEAVE_DONORS: 'b:5432 10.1.2.3:5432' } });
    expect(services['b']!.environment['POSTGRES_PASSWORD']).toMatch(/^\$\{PGWEAVE_B_PASSWORD:\?/);
    expect(services['a']!.command).toContain('wal_level=logical');
  });

  it('settings grow with the number of nodes', () => {
    expect(Number(nodeSettings(100)['max_replication_slots'])).toBeGreaterThanOrEqual(198);
    // A setting that the server does not know would keep it from starting.
    expect(nodeSettings(100, 17)).not.toHaveProperty('max_active_replication_origins');
    expect(Number(nodeSettings(100, 18)['max_active_replication_origins'])).toBeGreaterThanOrEqual(99);
    expect(Number(nodeSettings(100)['max_worker_processes'])).toBeGreaterThan(Number(nodeSettings(100)['max_logical_replication_workers']));
  });

  it('writes an entrypoint that bash can read', () => {
    const folder = mkdtempSync(join(tmpdir(), 'mesh-compose-'));
    try {
      writeCompose(nodes, join(folder, 'docker-compose.yml'));
      const script = join(folder, 'mesh-entrypoint.sh');
      execFileSync('bash', ['-n', script]);
      expect(statSync(script).mode & 0o111).not.toBe(0);
      expect(readFileSync(script, 'utf8')).toContain('max_logical_replication_workers=0');
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});

describe('pg_hba.conf', () => {
  it('lets every node in to every other', () => {
    const nodes = parseNodes([{ name: 'a', host: '10.0.0.1', db: 'all', user: 'u' }, { name: 'b', host: 'b.example', db: 'd', user: 'u r' }, { name: 'c', host: 'fd00::3', db: 'd', user: 'u', host_for_nodes: 'fd00::33' }], { env: {} });
    const text = hbaText(nodes, 'md5');
    expect(text.replace(/ +/g, ' ')).toContain(`# --- a (10.0.0.1): add to its pg_hba.conf, then: select pg_reload_conf();\n# TYPE DATABASE USER ADDRESS METHOD\nhost "all" u b.example md5\nhost "all" u fd00::33/128 md5`);
    expect(text.replace(/ +/g, ' ')).toContain('host d "u r" 10.0.0.1/32 md5');
  });

  it('the example names what it says', () => {
    expect(readNodes(join(example, 'nodes.json'), {}).map((n) => n.name)).toEqual(['mumbai', 'frankfurt', 'london']);
  });
});
