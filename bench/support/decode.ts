import { decodeMessage } from '../../src/pgoutput/index.ts';
import { parseConninfo } from '../../src/pg/conninfo.ts';
import { Session } from '../../src/pg/session.ts';
import type { Cluster } from '../../src/servers/cluster.ts';

/** The decoder alone, on messages that a server produced: MB/s and messages/s. */
export async function decodeBench(source: Cluster, scale: number, out: (text: string) => void): Promise<void> {
  await using session = await Session.open(parseConninfo(source.uri()), { role: 'bench' });
  await session.query(`create table public.d (id int primary key, a int, b bigint, c text, d timestamptz default now()); create publication decode for table public.d`);
  await session.query(`select pg_catalog.pg_create_logical_replication_slot('decode', 'pgoutput')`);
  const rows = Math.round(200_000 * scale);
  await session.query(`insert into public.d select g, g, g, 'some text of row ' || g from generate_series(1, ${rows}) g`);
  await session.query(`update public.d set a = a + 1`);
  const { all } = await session.one<{ all: string }>(`select pg_catalog.string_agg(pg_catalog.encode(data, 'hex'), ',') as all from pg_catalog.pg_logical_slot_get_binary_changes('decode', null, null, 'proto_version', '1', 'publication_names', 'decode')`);
  const messages = all.split(',').map((hex) => Buffer.from(hex, 'hex'));
  // In one buffer, as they come from a socket.
  const bytes = Buffer.concat(messages);
  const ends = new Uint32Array(messages.length);
  let end = 0;
  for (const [i, message] of messages.entries()) ends[i] = end += message.length;
  for (let round = 0; round < 5; round += 1) {
    const began = performance.now();
    let start = 0;
    for (const to of ends) {
      decodeMessage(bytes, start, to, false);
      start = to;
    }
    const s = (performance.now() - began) / 1000;
    if (round > 0) out(`${messages.length} messages, ${(bytes.length / 1048576).toFixed(1)} MB: ${Math.round(bytes.length / 1048576 / s)} MB/s, ${(messages.length / s / 1e6).toFixed(2)} million messages/s`);
  }
}
