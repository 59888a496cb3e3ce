import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { runCli, stateFolder } from '../../test/support/cli.ts';
import { waitFor } from '../../test/support/servers.ts';

describe('demo', () => {
  it('migrates a shop under a live writer and loses nothing', async () => {
    using state = stateFolder();
    const run = await runCli(['demo', '--scale', '0.02', '--json'], { XDG_STATE_HOME: state.path });
    expect(run.stderr).toBe('');
    expect(run.code).toBe(0);
    expect(JSON.parse(run.stdout)).toMatchObject({ missing: 0, schemaDifferences: 0, kept: false });
    expect(JSON.parse(run.stdout)).toMatchObject({ servers: [] });
    expect((JSON.parse(run.stdout) as { writer: { acknowledged: number } }).writer.acknowledged).toBeGreaterThan(0);
  });

  it('--keep leaves two servers up that can be used, and says how they go', async () => {
    using state = stateFolder();
    const run = await runCli(['demo', '--scale', '0.02', '--keep'], { XDG_STATE_HOME: state.path });
    const [, command, pids, folders] = /^ {2}(kill -INT ([\d ]+); sleep 2; rm -rf (.+))$/m.exec(run.stdout) ?? [];
    try {
      expect(run.code, run.stderr).toBe(0);
      const [source, target] = ['source', 'target'].map((side) => new RegExp(`^ {2}${side} {2}(\\S+)$`, 'm').exec(run.stdout)![1]!);
      const compared = await runCli(['compare', '--source', source!, '--target', target!, '--dir', state.path]);
      expect([compared.code, compared.stdout]).toEqual([0, expect.stringContaining('The schemas are equal')]);
    } finally {
      if (command) execFileSync('sh', ['-c', command]);
    }
    expect(pids?.split(' ')).toHaveLength(2);
    await waitFor('the servers to be gone', () => folders!.split(' ').every((folder) => !existsSync(folder)) && pids!.split(' ').every((pid) => !existsSync(`/proc/${pid}`)));
  });
});
