import { chmodSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { removeWhenGone } from '../../src/servers/reaper.ts';

/**
 * One folder a run for the servers that test files share. They are started by the first test that asks (see servers.ts) and stopped by the reaper when
 * this process ends, whichever way.
 */
export default function setup(): void {
  const folder = mkdtempSync(join(tmpdir(), 'pgwrun-'));
  chmodSync(folder, 0o755);
  removeWhenGone(folder);
  process.env['PGWEAVE_TEST_RUN'] = folder;
}
