import { execFileSync } from 'node:child_process';
import { cpSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createCluster } from '../../src/servers/cluster.ts';
import type { Cluster, EmbeddedVersion } from './servers.ts';

/** A streaming standby, made from a cold copy of the primary's folder. */
export async function standbyOf(primary: Cluster, version: EmbeddedVersion): Promise<Cluster> {
  const standby = await createCluster({ version, template: true });
  await primary.stop();
  rmSync(standby.dataFolder, { recursive: true, force: true });
  // cp keeps the owner, which is not us where we are root.
  if (process.getuid?.() === 0) execFileSync('cp', ['-a', primary.dataFolder, standby.dataFolder]);
  else cpSync(primary.dataFolder, standby.dataFolder, { recursive: true });
  rmSync(join(standby.dataFolder, 'postmaster.pid'), { force: true });
  await primary.start();
  writeFileSync(join(standby.dataFolder, 'standby.signal'), '');
  standby.configure({ primary_conninfo: `'host=127.0.0.1 port=${primary.port} user=postgres'` });
  await standby.start();
  return standby;
}
