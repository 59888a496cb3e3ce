import { describe, expect, it } from 'vitest';
import { createDatabase, embeddedVersions, sharedServer, waitFor } from '../../test/support/servers.ts';
import { ServerError } from './server-error.ts';
import { zeroLsn } from './lsn.ts';
import { publicationNames, ReplicationSession } from './replication-session.ts';
import { sqlstateOf } from './sqlstate.ts';

describe.each(embeddedVersions)('replication connection to PostgreSQL %i', (version) => {
  it('identifies the system, makes slots with snapshots, drops them', async () => {
    const server = await sharedServer(version);
    await using database = await createDatabase(server, 'rs');
    const slot = `rs_${database.name}`;
    await database.run(`create table t (id int primary key); insert into t values (1), (2)`);
    await using replication = await ReplicationSession.open(database.spec, { role: 'replication' });
    const identity = await replication.identifySystem();
    expect(identity).toMatchObject({ database: database.name, timeline: 1 });
    expect(identity.systemId).toMatch(/^\d{10,}$/);

    const made = await replication.createLogicalSlot({ name: slot, snapshot: 'export' });
    expect(made.consistentPoint).toBeGreaterThan(0n);
    await database.run('insert into t values (3)');
    await using reader = await database.session();
    const rows = await reader.transaction(async () => {
      await reader.query(`set transaction snapshot '${made.snapshotName!}'`);
      return reader.query<{ id: number }>('select id from t order by id');
    }, 'begin isolation level repeatable read read only');
    expect(rows.map((r) => r.id)).toEqual([1, 2]);
    const [state] = await database.query<{ plugin: string; temporary: boolean }>('select plugin, temporary from pg_catalog.pg_replication_slots where slot_name = $1', [slot]);
    expect(state).toEqual({ plugin: 'pgoutput', temporary: false });
    const taken = await replication.createLogicalSlot({ name: slot }).catch((error: unknown) => error);
    expect(sqlstateOf(taken)).toBe('42710');
    await replication.dropSlot(slot);
    expect(await database.query('select from pg_catalog.pg_replication_slots where slot_name = $1', [slot])).toEqual([]);
  });

  it('creates temporary, two-phase and failover slots where the server has them, and says so where not', async () => {
    const server = await sharedServer(version);
    await using database = await createDatabase(server, 'rs');
    await using replication = await ReplicationSession.open(database.spec, { role: 'replication' });
    const temporary = await replication.createLogicalSlot({ name: `tmp_${database.name}`, temporary: true });
    expect(temporary.snapshotName).toBeUndefined();
    const attempts = { twoPhase: 15, failover: 17 } as const;
    for (const [option, since] of Object.entries(attempts)) {
      const name = `${option.toLowerCase()}_${database.name}`;
      const result = await replication.createLogicalSlot({ name, [option]: true }).then(() => 'made', (error: unknown) => (error as { code: string }).code);
      expect(result).toBe(version >= since ? 'made' : 'not-supported');
    }
  });

  it('starts a stream and keeps the bytes that follow CopyBothResponse', async () => {
    const server = await sharedServer(version);
    await using database = await createDatabase(server, 'rs');
    const slot = `st_${database.name}`;
    await database.run('create table t (id int primary key); create publication "we,ird ""pub" for all tables');
    await using maker = await ReplicationSession.open(database.spec, { role: 'replication' });
    await maker.createLogicalSlot({ name: slot });
    await database.run('insert into t select generate_series(1, 100)');
    const replication = await ReplicationSession.open(database.spec, { role: 'replication' });
    const stream = await replication.startReplication({ slot, lsn: zeroLsn, options: { proto_version: '1', publication_names: publicationNames(['we,ird "pub']) } });
    const [active] = await database.query<{ active_pid: number }>('select active_pid from pg_catalog.pg_replication_slots where slot_name = $1', [slot]);
    expect(active?.active_pid).toBe(stream.backendPid);
    let bytes: Buffer = stream.rest;
    stream.socket.on('data', (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk]);
    });
    stream.socket.resume();
    const inserts = () => {
      const kinds: string[] = [];
      for (let at = 0; bytes.length - at >= 5; at += 1 + bytes.readInt32BE(at + 1)) if (bytes[at] === 0x64 && bytes[at + 5] === 0x77) kinds.push(String.fromCharCode(bytes[at + 30] ?? 0));
      return kinds.join('');
    };
    await waitFor('the transaction', () => inserts().includes('C'));
    expect(inserts()).toContain(`BR${'I'.repeat(100)}C`);
    stream.socket.destroy();
  });

  it('says why a stream cannot start', async () => {
    const server = await sharedServer(version);
    await using database = await createDatabase(server, 'rs');
    const replication = await ReplicationSession.open(database.spec, { role: 'replication' });
    const error = await replication.startReplication({ slot: 'there_is_none', lsn: zeroLsn, options: {} }).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(ServerError);
    expect(sqlstateOf(error)).toBe('42704');
  });
});
