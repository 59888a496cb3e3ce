import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { waitFor } from '../../test/support/servers.ts';
import { parseConninfo } from '../pg/conninfo.ts';
import { Session } from '../pg/session.ts';
import { binariesFor, serverBinaries } from './binaries.ts';
import { startCluster } from './cluster.ts';

/** Whether a process is there and has not ended. */
function runs(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !/^\d+ \(.*\) Z/s.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch (error) {
    // Without /proc the signal alone answers.
    return (error as NodeJS.ErrnoException).code === 'ENOENT' && !existsSync('/proc');
  }
}

describe('servers of our own', () => {
  it('run side by side, and leave neither process nor folder', async () => {
    const clusters = await Promise.all([startCluster({ version: 16, template: true }), startCluster({ version: 17, template: true })]);
    const pids = clusters.map((c) => c.pid!);
    expect(new Set(clusters.map((c) => c.port)).size).toBe(2);
    for (const cluster of clusters) {
      await using session = await Session.open(parseConninfo(cluster.uri()), { role: 'test' });
      expect(session.serverVersionText).toMatch(new RegExp(`^${cluster.version}\\.`));
    }
    if (process.getuid?.() === 0) for (const cluster of clusters) expect(statSync(cluster.dataFolder).uid).not.toBe(0);
    for (const cluster of clusters) await cluster.destroy();
    expect(pids.map(runs)).toEqual([false, false]);
    expect(clusters.map((c) => existsSync(c.folder))).toEqual([false, false]);
  });

  it('are stopped and removed after a process that was killed', async () => {
    const program = `const { startCluster } = await import(${JSON.stringify(resolve(import.meta.dirname, 'cluster.ts'))}); const c = await startCluster({ version: 17, template: true }); console.log(JSON.stringify({ pid: c.pid, folder: c.folder })); setInterval(() => {}, 1e6);`;
    const child = spawn(process.execPath, ['--import', import.meta.resolve('tsx'), '--input-type=module', '-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
    let said = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    try {
      await waitFor('the server', () => said.includes('\n'), 90_000);
      const { pid, folder } = JSON.parse(said) as { pid: number; folder: string };
      expect([runs(pid), existsSync(folder)]).toEqual([true, true]);
      child.kill('SIGKILL');
      await waitFor('the server to be gone', () => !runs(pid) && !existsSync(folder));
    } finally {
      child.kill('SIGKILL');
    }
  });

  it.skipIf(process.getuid?.() !== 0)('run from a copy of the binaries where the other user cannot enter their folder', async () => {
    const closed = mkdtempSync(join(tmpdir(), 'pgweave-closed-'));
    const copies: string[] = [];
    try {
      const inside = join(closed, 'native');
      mkdirSync(inside);
      cpSync(serverBinaries(17, undefined), inside, { recursive: true, verbatimSymlinks: true });
      chmodSync(closed, 0o700);
      const nobody = { uid: 65_534, gid: 65_534 };
      const version = (folder: string) => execFileSync(join(folder, 'bin', 'postgres'), ['--version'], { ...nobody, cwd: tmpdir(), encoding: 'utf8' });
      expect(() => version(inside)).toThrow(/EACCES/);
      const copy = binariesFor(nobody.uid, inside, 17);
      copies.push(copy);
      expect(version(copy)).toMatch(/^postgres \(PostgreSQL\) 17\./);
      // Whoever runs it himself needs no copy.
      expect(binariesFor(undefined, inside, 17)).toBe(inside);
    } finally {
      for (const folder of [closed, ...copies]) rmSync(folder, { recursive: true, force: true });
    }
  });
});
