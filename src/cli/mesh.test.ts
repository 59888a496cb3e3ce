import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest';
import { runProgram } from './common.ts';
import { meshCommand } from './mesh.ts';

const folder = mkdtempSync(join(tmpdir(), 'mesh-cli-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
afterEach(() => {
  vi.restoreAllMocks();
  process.exitCode = undefined;
});

/** Runs `pgweave mesh …` in this process; gives what it printed and its exit code. */
async function mesh(...args: string[]): Promise<{ out: string; err: string; code: number }> {
  let out = '';
  let err = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => ((out += String(text)), true));
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => ((err += String(text)), true));
  await runProgram(new Command('pgweave').addCommand(meshCommand()), ['node', 'pgweave', 'mesh', ...args]);
  const code = Number(process.exitCode ?? 0);
  vi.restoreAllMocks();
  process.exitCode = undefined;
  return { out, err, code };
}

const nodes = join(folder, 'nodes.json');
const tables = join(folder, 'schema.json');
writeFileSync(nodes, JSON.stringify([{ name: 'a', host: '127.0.0.1', port: 1, db: 'd', user: 'u', password: 'hunter22' }, { name: 'b', host: '10.0.0.2', db: 'd', user: 'u' }]));
writeFileSync(tables, JSON.stringify({ t: { columns: { id: { data_type: 'serial' } }, constraints: { primary: ['id'] } } }));

describe('pgweave mesh', () => {
  it('every subcommand has --help with an example, --nodes and --json', async () => {
    const names = meshCommand().commands.map((c) => c.name());
    expect(names).toEqual(expect.arrayContaining(['generate', 'apply-schema', 'setup-replication', 'generate-hba', 'status', 'add-node', 'remove-node', 'repair', 'adopt', 'verify']));
    for (const name of names) {
      const { out, code } = await mesh(name, '--help');
      expect(code).toBe(0);
      expect(out, name).toMatch(/Example:\n {2}pgweave mesh /);
      expect(out).toContain('-n, --nodes <file>');
      expect(out).toContain('--json');
    }
  });

  it('generate writes the three files, twice the same', async () => {
    const paths = { schema: join(folder, 'generated.sql'), compose: join(folder, 'docker-compose.yml') };
    const args = ['generate', '-n', nodes, '--tables', tables, '-s', paths.schema, '--compose', paths.compose];
    const { out, code } = await mesh(...args, '--json');
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({ nodes: ['a', 'b'], tables: ['public.t'] });
    const before = readFileSync(paths.schema, 'utf8') + readFileSync(paths.compose, 'utf8');
    expect((await mesh(...args)).out).toContain('1 table for 2 nodes');
    expect(readFileSync(paths.schema, 'utf8') + readFileSync(paths.compose, 'utf8')).toBe(before);
    expect(existsSync(join(folder, 'mesh-entrypoint.sh'))).toBe(true);
  });

  it('generate-hba', async () => {
    expect((await mesh('generate-hba', '-n', nodes)).out).toContain('10.0.0.2/32');
    expect((await mesh('generate-hba', '-n', nodes, '--auth-method', 'trust')).code).toBe(2);
    expect((await mesh('generate-hba', '-n', nodes, '--host-for-nodes', 'b=b.internal')).out).toContain('b.internal');
  });

  it('wrong input is exit code 2, with the path to the fault; nothing is written', async () => {
    const bad = join(folder, 'bad.json');
    writeFileSync(bad, JSON.stringify({ t: { columns: { id: { data_type: 'int' } }, constraints: { primary: ['nope'] } } }));
    const output = join(folder, 'never.sql');
    const { err, out, code } = await mesh('generate', '-n', nodes, '--tables', bad, '-s', output, '--json');
    expect(code).toBe(2);
    expect(err).toContain('t.constraints.primary[0]: there is no column "nope"');
    expect(JSON.parse(out)).toMatchObject({ error: { code: 'mesh-input' } });
    expect(existsSync(output)).toBe(false);
    expect((await mesh('status', '-n', join(folder, 'none.json'))).code).toBe(2);
    expect((await mesh('add-node', '-n', nodes)).code).toBe(2);
    expect((await mesh('generate', '-n', nodes, '--tables', tables, '--postgres-version', '15')).code).toBe(2);
  });

  it('unreachable nodes: status says 3 and names them, others 1; no password anywhere', async () => {
    writeFileSync(nodes, JSON.stringify([{ name: 'a', host: '127.0.0.1', port: 1, db: 'd', user: 'u', password: 'hunter22' }, { name: 'b', host: '127.0.0.1', port: 2, db: 'd', user: 'u' }]));
    const status = await mesh('status', '-n', nodes);
    expect(status.code).toBe(3);
    expect(status.out).toContain('a: cannot be reached');
    const setup = await mesh('setup-replication', '-n', nodes, '--json');
    expect(setup.code).toBe(1);
    expect(setup.err).toContain('2 nodes cannot be reached');
    expect(status.out + setup.out + setup.err).not.toContain('hunter22');
  });
});
