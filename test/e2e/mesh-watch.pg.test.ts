import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Topology } from '../../src/core/topology.ts';
import { startCli, stateFolder } from '../support/cli.ts';
import { fuzzTables } from '../support/mesh-fuzz.ts';
import { MeshLab } from '../support/mesh-lab.ts';
import { waitFor } from '../support/servers.ts';

describe('mesh watch', () => {
  it('serves the mesh as a picture that follows what happens to it, and logs what comes and goes', async () => {
    using folder = stateFolder();
    await using lab = new MeshLab(fuzzTables());
    await lab.start([18, 16]);
    const nodes = join(folder.path, 'nodes.json');
    writeFileSync(nodes, JSON.stringify(lab.meshNodes.map(({ id, name, host, port, db, user }) => ({ id, name, host, port, db, user }))));
    const run = startCli(['mesh', 'watch', '--nodes', nodes, '--dir', join(folder.path, 'state'), '--every', '250ms', '--maintain', '--json', '--api-port', '0']);
    try {
      const url = await waitFor('the address of the API', () => /dashboard and API: (\S+)/.exec(run.output().stderr)?.[1]);
      const topology = async () => ((await (await fetch(`${url}/api/v1/status`)).json()) as { job: { topology?: Topology } }).job.topology;
      const states = async () => (await topology())?.edges.map((e) => `${e.from} ${e.to} ${e.state}`).join(', ');
      await waitFor('both edges to be measured', async () => (await states()) === 'n1 n2 on-time, n2 n1 on-time');
      expect((await topology())!.nodes.map((n) => [n.name, n.reachable, n.problem, n.version?.split('.')[0]])).toEqual([['n1', true, null, '18'], ['n2', true, null, '16']]);
      const metrics = await (await fetch(`${url}/metrics`)).text();
      expect(metrics).toMatch(/pgweave_link_connected\{[^}]*from="n1",to="n2"[^}]*\} 1/);

      await lab.link(0, 1, false);
      await waitFor('the disabled edge', async () => (await states()) === 'n1 n2 paused, n2 n1 on-time');
      expect((await topology())!.edges[0]!.detail).toMatch(/is disabled on n2/);
      await waitFor('a word in the log', () => /n2: subscription \S+ is disabled/.test(run.output().stderr));
      await lab.link(0, 1, true);
      await waitFor('the edge to be well again', async () => (await states()) === 'n1 n2 on-time, n2 n1 on-time');
      await waitFor('a word in the log', () => /well again: n2: subscription \S+ is disabled/.test(run.output().stderr));

      await lab.nodes[1]!.cluster.stop();
      await waitFor('the lost node', async () => (await topology())?.nodes[1]?.reachable === false && (await states()) === 'n1 n2 not-connected, n2 n1 not-connected');
      await lab.nodes[1]!.cluster.start();
      await waitFor('the node to be back', async () => (await states()) === 'n1 n2 on-time, n2 n1 on-time');

      run.child.kill('SIGINT');
      const ended = await run.done;
      expect(ended.code).toBe(0);
      const looks = ended.stdout.trim().split('\n').map((line) => JSON.parse(line) as { kind: string; healthy: boolean });
      expect(looks.every((l) => l.kind === 'mesh')).toBe(true);
      expect(new Set(looks.map((l) => l.healthy))).toEqual(new Set([true, false]));
    } finally {
      run.child.kill('SIGKILL');
      await run.done;
    }
  }, 180_000);
});
