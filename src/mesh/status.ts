import { errorMessage } from '../core/errors.ts';
import { quoteIdent } from '../pg/identifiers.ts';
import type { Session } from '../pg/session.ts';
import { clockOffset, installedMesh } from './checks.ts';
import { openNode } from './connect.ts';
import { meshTables } from './members.ts';
import { publicationName, subscriptionName } from './names.ts';
import { tableFaults } from './table-faults.ts';
import type { MeshNode } from './nodes.ts';

export interface NodeStatus {
  readonly node: string;
  readonly id: number;
  readonly address: string;
  readonly reachable: boolean;
  readonly error: string | undefined;
  readonly version: string | undefined;
  readonly walLevel: string | undefined;
  readonly member: boolean;
  readonly members: readonly { readonly name: string; readonly state: string; readonly seenSecondsAgo: number | undefined }[];
  readonly tables: readonly { readonly table: string; readonly digest: string; readonly hidden: number; readonly tombstones: number; readonly orphans: number | undefined;
    /** What was changed about the table since it came in, so that nodes may come apart. */
    readonly faults: readonly string[] }[];
  readonly publications: readonly string[];
  readonly subscriptions: readonly { readonly name: string; readonly enabled: boolean; readonly running: boolean; readonly applyErrors: number }[];
  readonly slots: readonly { readonly name: string; readonly active: boolean; readonly lagBytes: number; readonly walStatus: string; readonly replayLagMs: number | undefined }[];
  readonly journalBytes: number;
  /** Since the last round of housekeeping (`maintain`); undefined where there was none. */
  readonly maintainedSecondsAgo: number | undefined;
  /** Overruled and hidden rows of the last day, by kind. */
  readonly conflicts: Readonly<Record<string, number>>;
  /** Ahead of the median of all nodes; undefined for one node alone. */
  readonly clockSkewMs: number | undefined;
}

export interface MeshIssue {
  readonly node: string;
  readonly issue: string;
  readonly fix: string;
}

export interface MeshStatus {
  readonly healthy: boolean;
  readonly nodes: readonly NodeStatus[];
  readonly issues: readonly MeshIssue[];
}

export interface StatusOptions {
  /** Also look for rows whose foreign keys lead nowhere: reads whole tables. */
  readonly orphans?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Facts about every node, reachable or not, and what is wrong with the mesh as a whole. */
export async function meshStatus(nodes: readonly MeshNode[], options: StatusOptions = {}): Promise<MeshStatus> {
  const measured = await Promise.all(nodes.map((n) => nodeStatus(n, options)));
  const offsets = measured.flatMap((m) => (m.offsetMs === undefined ? [] : [m.offsetMs])).sort((a, b) => a - b);
  const median = offsets[Math.floor(offsets.length / 2)];
  const found = measured.map(({ offsetMs, ...status }): NodeStatus => ({ ...status, clockSkewMs: offsetMs === undefined || median === undefined || offsets.length < 2 ? undefined : Math.round(offsetMs - median) }));
  const issues = healthIssues(nodes, found);
  return { healthy: issues.length === 0, nodes: found, issues };
}

/** Whether the whole topology is as it should be, and if not, why. */
export async function meshHealth(nodes: readonly MeshNode[], options: StatusOptions = {}): Promise<{ readonly healthy: boolean; readonly issues: readonly MeshIssue[] }> {
  const { healthy, issues } = await meshStatus(nodes, options);
  return { healthy, issues };
}

type Measured = Omit<NodeStatus, 'clockSkewMs'> & { readonly offsetMs: number | undefined };

async function nodeStatus(node: MeshNode, options: StatusOptions): Promise<Measured> {
  const empty: Measured = {
    node: node.name, id: node.id, address: `${node.host}:${node.port}/${node.db}`, reachable: false, error: undefined, version: undefined, walLevel: undefined, member: false, members: [], tables: [], publications: [], subscriptions: [],
    slots: [], journalBytes: 0, maintainedSecondsAgo: undefined, conflicts: {}, offsetMs: undefined,
  };
  let session: Session;
  try {
    session = await openNode(node, options.signal);
  } catch (error) {
    return { ...empty, error: errorMessage(error) };
  }
  try {
    const { wal } = await session.one<{ wal: string }>(`select pg_catalog.current_setting('wal_level') as wal`);
    const up: Measured = { ...empty, reachable: true, version: session.serverVersionText, walLevel: wal, offsetMs: (await clockOffset(session)).offsetMs };
    const mesh = await installedMesh(session);
    return mesh ? { ...up, member: mesh.name === node.name, ...(await meshFacts(session, options)) } : up;
  } catch (error) {
    return { ...empty, reachable: true, version: session.serverVersionText, error: errorMessage(error) };
  } finally {
    await session.close();
  }
}

async function meshFacts(session: Session, options: StatusOptions): Promise<Pick<Measured, 'members' | 'tables' | 'publications' | 'subscriptions' | 'slots' | 'journalBytes' | 'maintainedSecondsAgo' | 'conflicts'>> {
  const members = await session.query<{ name: string; state: string; seen: string | null }>('select name, state, pg_catalog.date_part(\'epoch\', pg_catalog.clock_timestamp() - seen_at)::text as seen from _mesh.node where id <> (select n.id from _mesh.node n where n.name = _mesh.my_name()) order by id');
  const tables: NodeStatus['tables'][number][] = [];
  const digests = new Map((await session.query<{ name: string; digest: string }>('select name, digest from _mesh.tbl')).map((t) => [t.name, t.digest]));
  const faults = await tableFaults(session);
  for (const table of await meshTables(session)) {
    const ghost = `_mesh.${quoteIdent(`ghost_${table.base}`)}`;
    const { hidden, dead } = await session.one<{ hidden: bigint; dead: bigint }>(`select pg_catalog.count(*) filter (where _mesh_kind = 'p') as hidden, pg_catalog.count(*) filter (where _mesh_kind = 'd') as dead from ${ghost}`);
    tables.push({ table: table.name, digest: digests.get(table.name) ?? '', hidden: Number(hidden), tombstones: Number(dead), orphans: options.orphans ? await countOrphans(session, table.rel) : undefined, faults: faults.get(table.name) ?? [] });
  }
  const publications = await session.query<{ pubname: string }>(`select p.pubname from pg_catalog.pg_publication p join pg_catalog.pg_publication_rel r on r.prpubid = p.oid where r.prrelid = '_mesh.journal'::regclass order by 1`);
  const subscriptions = await session.query<{ subname: string; subenabled: boolean; running: boolean; errors: bigint }>(`select s.subname, s.subenabled, w.pid is not null as running, coalesce(t.apply_error_count, 0) as errors
    from pg_catalog.pg_subscription s join pg_catalog.pg_database d on d.oid = s.subdbid and d.datname = pg_catalog.current_database()
    left join pg_catalog.pg_stat_subscription w on w.subid = s.oid and w.relid is null and w.leader_pid is null left join pg_catalog.pg_stat_subscription_stats t on t.subid = s.oid where s.subname ~ '^sub_.+_from_' order by 1`);
  const slots = await session.query<{ slot_name: string; active: boolean; lag: string; wal_status: string | null; replay: string | null }>(`select s.slot_name, s.active, l.bytes::text as lag, s.wal_status, (pg_catalog.date_part('epoch', r.replay_lag) * 1000)::text as replay
    from pg_catalog.pg_replication_slots s left join pg_catalog.pg_stat_replication r on r.pid = s.active_pid cross join lateral (select pg_catalog.pg_current_wal_insert_lsn() - s.confirmed_flush_lsn as bytes) l
    where s.database = pg_catalog.current_database() and s.slot_name ~ '^sub_.+_from_' order by 1`);
  const { maintained } = await session.one<{ maintained: string | null }>(`select pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - (select n.seen_at from _mesh.node n where n.name = _mesh.my_name()))::text as maintained`);
  const { bytes } = await session.one<{ bytes: bigint }>(`select pg_catalog.pg_total_relation_size('_mesh.journal') as bytes`);
  const conflicts = await session.query<{ kind: string; n: bigint }>(`select kind, pg_catalog.count(*) as n from _mesh.conflict where at > pg_catalog.clock_timestamp() - interval '1 day' group by kind order by kind`);
  return {
    members: members.map((m) => ({ name: m.name, state: m.state, seenSecondsAgo: m.seen === null ? undefined : Math.round(Number(m.seen)) })), tables, publications: publications.map((p) => p.pubname),
    subscriptions: subscriptions.map((s) => ({ name: s.subname, enabled: s.subenabled, running: s.running, applyErrors: Number(s.errors) })),
    slots: slots.map((s) => ({ name: s.slot_name, active: s.active, lagBytes: Number(s.lag), walStatus: s.wal_status ?? 'unknown', replayLagMs: s.replay === null ? undefined : Math.round(Number(s.replay)) })),
    journalBytes: Number(bytes), maintainedSecondsAgo: maintained === null ? undefined : Math.round(Number(maintained)), conflicts: Object.fromEntries(conflicts.map((c) => [c.kind, Number(c.n)])),
  };
}

/** Rows whose foreign keys lead nowhere: a parent deleted on one node while another inserted its child. */
async function countOrphans(session: Session, rel: string): Promise<number> {
  const keys = await session.query<{ target: string; mine: string[]; theirs: string[] }>(`select pg_catalog.format('%I.%I', n.nspname, f.relname) as target,
      (select pg_catalog.array_agg(a.attname::text order by k.o) from pg_catalog.unnest(c.conkey) with ordinality k(n, o) join pg_catalog.pg_attribute a on a.attrelid = c.conrelid and a.attnum = k.n) as mine,
      (select pg_catalog.array_agg(a.attname::text order by k.o) from pg_catalog.unnest(c.confkey) with ordinality k(n, o) join pg_catalog.pg_attribute a on a.attrelid = c.confrelid and a.attnum = k.n) as theirs
    from pg_catalog.pg_constraint c join pg_catalog.pg_class f on f.oid = c.confrelid join pg_catalog.pg_namespace n on n.oid = f.relnamespace where c.contype = 'f' and c.conrelid = $1::regclass`, [rel]);
  let total = 0;
  for (const { target, mine, theirs } of keys) {
    const { n } = await session.one<{ n: bigint }>(`select pg_catalog.count(*) as n from ${rel} x where ${mine.map((c) => `x.${quoteIdent(c)} is not null`).join(' and ')}
      and not exists (select from ${target} y where ${mine.map((c, i) => `y.${quoteIdent(theirs[i]!)} = x.${quoteIdent(c)}`).join(' and ')})`);
    total += Number(n);
  }
  return total;
}

/** WAL kept back for one edge beyond which something is taken to be wrong. */
const lagAlarmBytes = 1024 ** 3;
const skewAlarmMs = 10_000;
/** Housekeeping should run some times a minute; after so long it was forgotten. */
const overdueSeconds = 600;
/** Heartbeats that take longer are not on their way any more. */
const stuckSeconds = 120;

/** What is wrong, judged over all nodes; pure. */
export function healthIssues(nodes: readonly MeshNode[], found: readonly NodeStatus[]): MeshIssue[] {
  const issues: MeshIssue[] = [];
  const model = found.find((s) => s.member);
  for (const s of found) {
    const add = (issue: string, fix: string) => void issues.push({ node: s.node, issue, fix });
    if (!s.reachable) {
      add(`cannot be reached: ${s.error ?? 'unknown'}`, 'Start it; the others keep its changes waiting in their WAL. Where it is gone for good: pgweave mesh remove-node --lost.');
      continue;
    }
    if (s.error !== undefined) add(`cannot be looked at: ${s.error}`, 'Check the rights of the role in nodes.json.');
    if (s.walLevel !== undefined && s.walLevel !== 'logical') add(`wal_level = ${s.walLevel}`, `alter system set wal_level = 'logical', then restart.`);
    if (!s.member) {
      if (s.error === undefined) add('holds no mesh of that name', 'pgweave mesh apply-schema, then setup-replication or add-node.');
      continue;
    }
    if (s.clockSkewMs !== undefined && Math.abs(s.clockSkewMs) > skewAlarmMs) add(`its clock is ${(s.clockSkewMs / 1000).toFixed(1)} s off`, 'Set it right (NTP): changes too far ahead are refused.');
    if (!s.publications.includes(publicationName(s.node))) add(`publication ${publicationName(s.node)} is missing`, 'pgweave mesh setup-replication makes it again.');
    if ((s.maintainedSecondsAgo ?? Number.POSITIVE_INFINITY) > overdueSeconds) {
      add(`no housekeeping ${s.maintainedSecondsAgo === undefined ? 'has ever run' : `for ${Math.round(s.maintainedSecondsAgo / 60)} minutes`}: tombstones and journal grow`, `Let something run it on every node: pgweave mesh maintain --every 15s as a service, or pg_cron: select cron.schedule('pgweave-mesh', '15 seconds', 'select _mesh.maintain()');`);
    }
    for (const table of s.tables) for (const fault of table.faults) add(`table ${table.table}: ${fault}`, 'DDL is not replicated: bring all nodes to one definition; docs/mesh.md, "What a mesh cannot give you". Then pgweave mesh repair.');
    for (const slot of s.slots) {
      if (nodes.some((n) => slot.name === subscriptionName(n.name, s.node))) continue;
      add(`slot ${slot.name} belongs to no node in nodes.json and keeps ${Math.round(slot.lagBytes / 1024 ** 2)} MB of WAL`, `If that node is gone for good: pgweave mesh remove-node --lost, or select pg_drop_replication_slot('${slot.name}');`);
    }
    for (const peer of nodes) {
      if (peer.name === s.node) continue;
      const known = s.members.find((m) => m.name === peer.name);
      if (!known || known.state === 'removed') add(`does not know ${peer.name} as a member`, `pgweave mesh add-node ${peer.name}`);
      else if (known.state === 'joining') add(`${peer.name} is still joining: no tombstone is collected`, `Run pgweave mesh add-node ${peer.name} to its end, or remove-node --lost ${peer.name}.`);
      const subscription = s.subscriptions.find((x) => x.name === subscriptionName(s.node, peer.name));
      if (!subscription) add(`subscription ${subscriptionName(s.node, peer.name)} is missing`, 'pgweave mesh setup-replication, then repair.');
      else if (!subscription.enabled) add(`subscription ${subscription.name} is disabled`, `alter subscription ${subscription.name} enable`);
      else if (!subscription.running && found.some((f) => f.node === peer.name && f.reachable)) add(`subscription ${subscription.name} is not running${subscription.applyErrors > 0 ? ` (${subscription.applyErrors} apply errors)` : ''}`, 'The server log of this node says why; it tries again by itself.');
      // A worker that fails over and over is found running at times; heartbeats that do not arrive tell for certain.
      const spoke = found.find((f) => f.node === peer.name)?.maintainedSecondsAgo;
      const heard = known?.seenSecondsAgo;
      if (subscription?.enabled && spoke !== undefined && heard !== undefined && heard - spoke > stuckSeconds) {
        add(`has heard nothing from ${peer.name} for ${Math.round(heard)} s, which spoke ${Math.round(spoke)} s ago: the edge is stuck or far behind${subscription.applyErrors > 0 ? ` (${subscription.applyErrors} apply errors so far)` : ''}`, 'The server log of this node says why. Its changes wait; nothing is lost.');
      }
      const slot = s.slots.find((x) => x.name === subscriptionName(peer.name, s.node));
      if (!slot) add(`slot ${subscriptionName(peer.name, s.node)} is missing`, 'pgweave mesh setup-replication makes it again; then pgweave mesh repair, since changes are lost to that node.');
      else if (slot.walStatus === 'lost') add(`slot ${slot.name} has lost its WAL`, `Changes are lost to ${peer.name}: pgweave mesh setup-replication makes it anew and tells everything again, then pgweave mesh repair.`);
      else if (slot.lagBytes > lagAlarmBytes) add(`${peer.name} is ${Math.round(slot.lagBytes / 1024 ** 2)} MB behind`, 'Watch the disk: WAL is kept until that node has it.');
    }
    for (const member of s.members) if (member.state !== 'removed' && !nodes.some((n) => n.name === member.name)) add(`counts ${member.name} as a member, which nodes.json does not name`, 'Add it to nodes.json.');
    const strange = model!.tables.filter((t) => s.tables.find((x) => x.table === t.table)?.digest !== t.digest).map((t) => t.table);
    if (strange.length > 0) add(`defines ${strange.join(', ')} otherwise than ${model!.node}`, 'Apply the same definition on every node.');
    const orphans = s.tables.filter((t) => (t.orphans ?? 0) > 0);
    if (orphans.length > 0) add(`rows whose foreign keys lead nowhere: ${orphans.map((t) => `${t.table} ${t.orphans}`).join(', ')}`, 'A parent was deleted on one node while another inserted its child. Delete these rows or insert the parents, on any node.');
  }
  return issues;
}
