import { cpSync, chownSync, lstatSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeAll, afterAll, describe, expect, it } from 'vitest';
import { armFailpoints } from '../core/failpoints.ts';
import { createCluster, type Cluster } from '../servers/cluster.ts';
import { waitFor } from '../../test/support/servers.ts';
import { fuzz, fuzzTables } from '../../test/support/mesh-fuzz.ts';
import { MeshLab } from '../../test/support/mesh-lab.ts';
import { addNode } from './add-node.ts';
import { openNode } from './connect.ts';
import { parseNodes } from './nodes.ts';
import { removeNode } from './remove-node.ts';
import { repairMesh } from './repair.ts';
import { meshStatus } from './status.ts';
import { verifyMesh } from './verify.ts';

let lab: MeshLab;

beforeAll(async () => {
  lab = new MeshLab(fuzzTables());
  await lab.start([18, 16]);
});
afterAll(async () => {
  await lab?.[Symbol.asyncDispose]();
});
afterEach(() => armFailpoints(''));

async function agreed(): Promise<void> {
  await lab.settle();
  expect(await lab.differences()).toEqual([]);
}

describe('members of a mesh that is written to', () => {
  it('add-node by copy, under load, between versions', async () => {
    await fuzz(lab, { seed: 71, rounds: 25, kills: false });
    await lab.addServer(17);
    const joined = lab.nodes.pop()!;
    const result = { state: '' };
    await fuzz(lab, { seed: 72, rounds: 90, kills: false, partitions: false }, async () => {
      result.state = (await addNode([...lab.meshNodes, joined.node], 'n3', { sql: lab.sql })).state;
    });
    lab.nodes.push(joined);
    expect(result.state).toBe('active');
    await fuzz(lab, { seed: 73, rounds: 25, kills: false });
    await agreed();
    expect(await addNode(lab.meshNodes, 'n3', {}).catch((e: { code?: string }) => e.code)).toBe('already-member');
    const status = await meshStatus(lab.meshNodes, { orphans: true });
    expect(status.issues.filter((i) => !i.issue.startsWith('rows whose foreign keys') && !i.issue.includes('is not running'))).toEqual([]);
  });

  it('refuses writes on a node that joins, and begins anew after a crash at every step', async () => {
    const added = await lab.addServer(18, 'n4', 4);
    lab.nodes.pop();
    const nodes = [...lab.meshNodes, added.node];
    const points = ['registered', 'slots', 'waited', 'copied', 'own-slots', 'half-subscribed', 'subscribed', 'open'];
    for (const [i, point] of points.entries()) {
      armFailpoints(`mesh.add.${point}=error`);
      await expect(addNode(nodes, 'n4', { sql: lab.sql })).rejects.toThrow(`failpoint mesh.add.${point}`);
      armFailpoints('');
      // The mesh goes on, and what it writes meanwhile must not be lost on the node.
      await lab.on(i % 3, `insert into r values ($1, $1, 'while joining') on conflict (id) do update set b = excluded.b`, [1000 + i]);
      if (point === 'copied') {
        await using session = await openNode(added.node);
        await expect(session.query(`insert into r values (5000, 1, 'too early')`)).rejects.toMatchObject({ code: '25006' });
      }
    }
    const steps: string[] = [];
    expect((await addNode(nodes, 'n4', { sql: lab.sql, onStep: (s) => steps.push(s) })).state).toBe('active');
    lab.nodes.push(added);
    await lab.on(3, `insert into r values (5000, 1, 'in time')`);
    await agreed();
    expect(await lab.on(3, 'select count(*)::int as n from r where id between 1000 and 1007')).toEqual([{ n: points.length }]);
  });

  it('remove-node in order: everything it wrote stays with the others, its tables stay with it', async () => {
    await lab.link(3, 0, false);
    await lab.on(3, `insert into r values (6000, 1, 'last words')`);
    await lab.link(3, 0, true);
    const gone = lab.nodes[3]!;
    const steps: string[] = [];
    armFailpoints('mesh.remove.drained=error');
    await expect(removeNode(lab.meshNodes, 'n4', { onStep: (s) => steps.push(s) })).rejects.toThrow('failpoint');
    armFailpoints('');
    const result = await removeNode(lab.meshNodes, 'n4', { onStep: (s) => steps.push(s) });
    expect(result.remaining).toEqual(['n1', 'n2', 'n3']);
    await using session = await openNode(gone.node);
    expect(await session.query(`select b from r where id = 6000`)).toEqual([{ b: 'last words' }]);
    expect(await session.query(`select to_regnamespace('_mesh')::text as there`)).toEqual([{ there: null }]);
    await session.query(`update r set a = 2 where id = 6000`);
    lab.nodes.pop();
    await lab.settle();
    for (const i of [0, 1, 2]) expect(await lab.on(i, `select b from r where id = 6000`)).toEqual([{ b: 'last words' }]);
    expect((await verifyMesh(lab.meshNodes)).equal).toBe(true);
    for (const i of [0, 1, 2]) {
      const left = await lab.on(i, `select slot_name as name from pg_replication_slots where slot_name like '%n4%' union all select subname from pg_subscription where subname like '%n4%'`);
      expect(left).toEqual([]);
    }
    expect((await addNode([...lab.meshNodes, gone.node], 'n4', { sql: lab.sql }).catch((e: { code?: string }) => ({ state: e.code }))).state).toBe('node-number-used');
    await gone.cluster.destroy();
  });

  it('remove-node lost: what it had told only one node reaches the others', async () => {
    // The node tells n2 alone, then is gone for good.
    await lab.link(2, 0, false);
    await lab.on(2, `insert into r values (7000, 1, 'heard by n2'); insert into c (id, n) values (7000, 5); delete from r where id = 1000`);
    await waitFor('n2 has heard', async () => (await lab.on(1, `select 1 from r where id = 7000`)).length === 1);
    const lost = lab.nodes.pop()!;
    await lost.cluster.kill();
    expect(await meshStatus([...lab.meshNodes, lost.node]).then((s) => s.issues.some((i) => i.node === 'n3' && i.issue.startsWith('cannot be reached')))).toBe(true);
    expect(await removeNode([...lab.meshNodes, lost.node], 'n3', {}).catch((e: { code?: string }) => e.code)).toBe('connection-refused');
    const result = await removeNode([...lab.meshNodes, lost.node], 'n3', { lost: true });
    expect(result.emitted).toBeGreaterThan(0n);
    await lab.settle();
    expect(await lab.on(0, `select b from r where id in (7000, 1000)`)).toEqual([{ b: 'heard by n2' }]);
    expect((await verifyMesh(lab.meshNodes)).equal).toBe(true);
    await lost.cluster.destroy();
    // No tombstone waits for the lost node any more.
    await waitFor('tombstones are collected', async () => {
      for (const i of [0, 1]) await lab.on(i, 'select _mesh.maintain(journal_bytes => 1000000000)');
      return (await lab.on<{ n: number }>(0, `select count(*)::int as n from _mesh.ghost_r where _mesh_kind = 'd'`))[0]!.n === 0;
    });
  });

  it('add-node by base backup of the donor', async () => {
    const donor = lab.nodes[0]!;
    const clone = await createCluster({ version: 18, template: true });
    const id = 7;
    const make = (port: number) => parseNodes([{ id, name: 'n7', host: '127.0.0.1', port, db: 'mesh', user: 'postgres' }])[0]!;
    const prepared = await addNode([...lab.meshNodes, make(1)], 'n7', { donor: 'n1', method: 'base-backup', phase: 'prepare' });
    expect(prepared.state).toBe('prepared');
    await lab.on(1, `insert into r values (8000, 1, 'before the backup ended')`);
    await backup(donor.cluster, clone);
    clone.configure({ max_logical_replication_workers: '4' });
    await clone.start();
    const node = make(clone.port);
    const nodes = [...lab.meshNodes, node];
    // Its cloned subscriptions could run: refused.
    expect(await addNode(nodes, 'n7', { donor: 'n1', method: 'base-backup', phase: 'finish' }).catch((e: { code?: string }) => e.code)).toBe('clone-runs-workers');
    clone.configure({ max_logical_replication_workers: '0' });
    await clone.stop('immediate');
    await backup(donor.cluster, clone);
    clone.configure({ max_logical_replication_workers: '0' });
    await clone.start();
    await fuzz(lab, { seed: 75, rounds: 40, kills: false, partitions: false }, async () => {
      await expect(addNode(nodes, 'n7', { donor: 'n1', method: 'base-backup', phase: 'finish' })).resolves.toMatchObject({ state: 'active' });
    });
    clone.configure({ max_logical_replication_workers: '8', wal_retrieve_retry_interval: `'50ms'` });
    await clone.restart();
    lab.nodes.push({ node, cluster: clone });
    await fuzz(lab, { seed: 76, rounds: 20, kills: false, partitions: false });
    await lab.settle();
    expect((await verifyMesh(lab.meshNodes)).differences).toEqual([]);
    expect(await lab.on(2, `select b from r where id = 8000`)).toEqual([{ b: 'before the backup ended' }]);
  });

  it('verify finds, and repair mends, what went past the triggers', async () => {
    await lab.on(0, `insert into r values (9000, 1, 'a'), (9001, 1, 'a'), (9002, 1, 'a') on conflict (id) do update set b = 'a'; insert into c (id, a, n) values (9000, 1, 1)`);
    await lab.settle();
    // A superuser in replica mode: a value under the same stamp, a row gone, a row from nowhere, a counter.
    await lab.on(1, `set session_replication_role = replica; update r set b = 'forged' where id = 9000; delete from r where id = 9001; insert into r (id, b) values (9003, 'from nowhere'); update c set a = 77 where id = 9000`);
    const found = await verifyMesh(lab.meshNodes);
    expect(found.differences.map((d) => `${d.table} ${d.key}`).sort()).toEqual(['public.c 9000', 'public.r 9000', 'public.r 9001', 'public.r 9003']);
    const result = await repairMesh(lab.meshNodes, { from: 'n1' });
    expect(result.after.differences).toEqual([]);
    expect(result.stampedAnew).toBe(2);
    for (let i = 0; i < lab.nodes.length; i += 1) {
      expect(await lab.on(i, `select id, b from r where id between 9000 and 9003 order by id`)).toEqual([{ id: 9000, b: 'a' }, { id: 9001, b: 'a' }, { id: 9002, b: 'a' }, { id: 9003, b: 'from nowhere' }]);
      expect(await lab.on(i, `select a from c where id = 9000`)).toEqual([{ a: 1 }]);
    }
    expect((await repairMesh(lab.meshNodes)).toldAgain).toBe(0);
  });
});

/** What pg_basebackup does, by the low-level API: the embedded servers come without that program. Source: PostgreSQL documentation, "Making a Base Backup Using the Low Level API". */
async function backup(source: Cluster, target: Cluster): Promise<void> {
  await using session = await openNode(lab.nodes.find((n) => n.cluster === source)!.node);
  await session.query(`select pg_backup_start('mesh', true)`);
  for (const entry of readdirSync(target.dataFolder)) rmSync(join(target.dataFolder, entry), { recursive: true });
  const skipped = /\/(postmaster\.(pid|opts)|pg_replslot\/.+|pg_wal\/.+)$/;
  const copy = (filter: (path: string) => boolean) => cpSync(source.dataFolder, target.dataFolder, { recursive: true, force: true, filter: (path) => filter(path.slice(source.dataFolder.length)) });
  for (;;) {
    try {
      copy((path) => !skipped.test(path));
      break;
    } catch (error) {
      // A file went away while it was copied: the WAL makes up for that, the copy need only be whole.
      if ((error as { code?: string }).code !== 'ENOENT') throw error;
    }
  }
  const { label } = await session.one<{ label: string }>('select labelfile as label from pg_backup_stop(false)');
  mkdirSync(join(target.dataFolder, 'pg_wal'), { recursive: true });
  for (const name of readdirSync(join(source.dataFolder, 'pg_wal'))) if (/^[0-9A-F]{24}$/.test(name)) cpSync(join(source.dataFolder, 'pg_wal', name), join(target.dataFolder, 'pg_wal', name));
  const { writeFileSync } = await import('node:fs');
  writeFileSync(join(target.dataFolder, 'backup_label'), label);
  const { uid, gid } = lstatSync(source.dataFolder);
  const own = (path: string): void => {
    chownSync(path, uid, gid);
    if (lstatSync(path).isDirectory()) for (const entry of readdirSync(path)) own(join(path, entry));
  };
  own(target.dataFolder);
}
