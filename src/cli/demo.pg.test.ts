import { describe, expect, it } from 'vitest';
import { runCli, stateFolder } from '../../test/support/cli.ts';

describe('demo', () => {
  it('migrates a shop under a live writer and loses nothing', async () => {
    using state = stateFolder();
    const run = await runCli(['demo', '--scale', '0.02', '--json'], { XDG_STATE_HOME: state.path });
    expect(run.stderr).toBe('');
    expect(run.code).toBe(0);
    expect(JSON.parse(run.stdout)).toMatchObject({ missing: 0, schemaDifferences: 0, kept: false });
    expect((JSON.parse(run.stdout) as { writer: { acknowledged: number } }).writer.acknowledged).toBeGreaterThan(0);
  });
});
