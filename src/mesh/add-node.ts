import { PgweaveError } from '../core/errors.ts';
import { failpoint } from '../core/failpoints.ts';
import { quoteIdent } from '../pg/identifiers.ts';
import type { Session } from '../pg/session.ts';
import { applySchema } from './apply-schema.ts';
import { clockFaults, encodingFaults, faultsError, installedMesh, sameMesh, serverFaults, type InstalledMesh } from './checks.ts';
import { NodeSessions } from './connect.ts';
import { dropSlot, dropSubscription, ensureApplyRole, ensurePublication, ensureSlot, ensureSubscription, waitConfirmed } from './edges.ts';
import { loadFromDonor } from './load-copy.ts';
import { edgeNames, meshOf, meshTables, registerJoining, setMembers, takeOff } from './members.ts';
import { subscriptionName } from './names.ts';
import { nodeNamed, type MeshNode } from './nodes.ts';
import { adoptAsMembers } from './join-adopted.ts';
import { interleaveKeys } from './sequences.ts';

export interface AddNodeOptions {
  /** Which member the rows come from; default: the first active one. */
  readonly donor?: string | undefined;
  /** `copy`: rows through this program, also between versions. `base-backup`: in two steps, around a base backup of the donor. */
  readonly method?: 'copy' | 'base-backup' | undefined;
  /** Of `base-backup`: `prepare` before the backup is taken, `finish` after the clone was started. */
  readonly phase?: 'prepare' | 'finish' | undefined;
  /** Text of generated.sql, for a node that is empty. */
  readonly sql?: string | undefined;
  /** How long the donor may take to catch up. Default ten minutes. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onStep?: ((step: string) => void) | undefined;
}

export interface AddNodeResult {
  readonly node: string;
  readonly donor: string;
  /** Of a copy: rows loaded. */
  readonly rows: number | undefined;
  /** `active`, or `prepared`: the base backup is to be taken now. */
  readonly state: 'active' | 'prepared';
  /** What the user does next, if anything. */
  readonly next: readonly string[];
}

interface Join {
  readonly node: MeshNode;
  readonly peers: readonly MeshNode[];
  readonly donor: MeshNode;
  readonly sessions: NodeSessions;
  readonly options: AddNodeOptions;
}

const gate = (node: MeshNode) => `node ${node.name} is joining the mesh and takes no writes yet`;

/**
 * Brings a node into a running mesh while the others are written to. Every step may be run again: a run that broke off is cleared away and begun anew.
 * No application may write to the node before this returns; its triggers refuse it. Throws before anything is changed where the node or a peer is unfit.
 */
export async function addNode(nodes: readonly MeshNode[], name: string, options: AddNodeOptions = {}): Promise<AddNodeResult> {
  const node = nodeNamed(nodes, name);
  const others = nodes.filter((n) => n.name !== name);
  if (others.length === 0) throw new PgweaveError('mesh-too-small', `nodes.json names no node besides ${name}`, { exitCode: 2, hint: 'The members of the running mesh must be in nodes.json too.' });
  await using sessions = await NodeSessions.open(others, options.signal);
  const { peers, donor, meshes } = await membersFor(sessions, others, node, options.donor);
  const join: Join = { node, peers, donor, sessions, options };
  const base = options.method === 'base-backup';
  if (base && options.phase !== 'finish') {
    await prepare(join);
    await sessions.of(donor).query('update _mesh.node set ready = true where id = $1', [node.id]);
    return { node: name, donor: donor.name, rows: undefined, state: 'prepared', next: baseBackupSteps(join) };
  }
  await using own = await NodeSessions.open([node], options.signal);
  const target = own.of(node);
  await checkTarget(join, target, meshes, own);
  if (await isTied(join, target)) {
    // An earlier run came as far as opening the node: only the members are still to be told.
    for (const peer of peers) await setMembers(sessions.of(peer), [node]);
    return { node: name, donor: donor.name, rows: undefined, state: 'active', next: [] };
  }
  let rows: number | undefined;
  if (base) await becomeOneself(join, target);
  else rows = await copyIn(join, target);
  await tieIn(join, target);
  return { node: name, donor: donor.name, rows, state: 'active', next: base ? [`Restart ${name} with max_logical_replication_workers as on the other nodes: its subscriptions begin then.`] : [] };
}

async function membersFor(sessions: NodeSessions, others: readonly MeshNode[], node: MeshNode, donorName: string | undefined): Promise<{ peers: MeshNode[]; donor: MeshNode; meshes: Map<string, InstalledMesh> }> {
  const first = await installedMesh(sessions.of(donorName ?? others[0]!.name));
  if (!first) throw new PgweaveError('no-mesh', `node ${donorName ?? others[0]!.name} holds no mesh`, { hint: 'add-node needs a running mesh: pgweave mesh apply-schema and setup-replication make one.' });
  const active = first.members.filter((m) => m.state === 'active');
  const strangers = active.filter((m) => m.name !== node.name && !others.some((n) => n.name === m.name));
  if (strangers.length > 0) throw new PgweaveError('mesh-input', `${strangers.map((m) => m.name).join(', ')} ${strangers.length === 1 ? 'is a member' : 'are members'} of the mesh but not in nodes.json`, { exitCode: 2, hint: 'A new node must be tied to every member: add them, or remove-node --lost what is gone.' });
  const peers = others.filter((n) => active.some((m) => m.name === n.name));
  const meshes = await meshOf(sessions, peers);
  const known = [...meshes.values()].flatMap((m) => m.members);
  const same = known.filter((m) => m.name === node.name);
  if (same.length > 0 && [...meshes.values()].every((m) => m.members.some((x) => x.name === node.name && x.state === 'active'))) {
    throw new PgweaveError('already-member', `node ${node.name} is a member already`, { hint: 'pgweave mesh status shows how it fares.' });
  }
  if (same.some((m) => m.state === 'removed' && m.id === node.id) || known.some((m) => m.id === node.id && m.name !== node.name)) {
    const taken = new Set(known.map((m) => m.id));
    let free = 1;
    while (taken.has(free)) free += 1;
    throw new PgweaveError('node-number-used', `number ${node.id} of node ${node.name} is or was the number of a member; stamps with it exist`, { exitCode: 2, hint: `Give the node a number and a name that were never used, in nodes.json: "id": ${free}.` });
  }
  const donor = donorName === undefined ? peers[0]! : nodeNamed(peers, donorName);
  return { peers, donor, meshes };
}

async function checkTarget(join: Join, target: Session, meshes: Map<string, InstalledMesh>, own: NodeSessions): Promise<void> {
  const faults = await serverFaults(target, join.node, join.peers.length + 1, join.options.method === 'base-backup');
  for (const peer of join.peers) faults.push(...(await serverFaults(join.sessions.of(peer), peer, join.peers.length + 1)));
  if (faults.length > 0) throw faultsError('node-unfit', faults);
  const both = { of: (n: MeshNode | string) => ((typeof n === 'string' ? n : n.name) === join.node.name ? own.of(n) : join.sessions.of(n)) } as NodeSessions;
  const refused = [...(await clockFaults(both, [...join.peers, join.node], meshes.get(join.donor.name)!.maxDriftMs)), ...(await encodingFaults(both, [join.donor, join.node]))];
  if (refused.length > 0) throw faultsError('mesh-refused', refused);
}

/** Steps 1 to 3: nothing that happens from here on is lost on the new node, wherever its rows come from. */
async function prepare(join: Join): Promise<void> {
  const { node, peers, donor, sessions, options } = join;
  // What an earlier run left behind would begin at the wrong place.
  for (const peer of peers) {
    await dropSubscription(sessions.of(peer), subscriptionName(peer.name, node.name));
    await dropSlot(sessions.of(peer), subscriptionName(node.name, peer.name), options.signal);
  }
  for (const peer of peers) await registerJoining(sessions.of(peer), node);
  options.onStep?.('registered: no node drops a tombstone');
  await failpoint('mesh.add.registered');
  const begins = new Map<string, bigint>();
  for (const peer of peers) begins.set(peer.name, await ensureSlot(sessions.of(peer), subscriptionName(node.name, peer.name)));
  options.onStep?.('slots on every member');
  await failpoint('mesh.add.slots');
  for (const peer of peers) {
    if (peer.name === donor.name) continue;
    await waitConfirmed(sessions.of(peer), subscriptionName(donor.name, peer.name), begins.get(peer.name)!, { timeoutMs: options.timeoutMs ?? 600_000, signal: options.signal, what: `donor ${donor.name} (changes of ${peer.name})` });
  }
  options.onStep?.(`${donor.name} has everything from before the slots`);
  await failpoint('mesh.add.waited');
}

async function copyIn(join: Join, target: Session): Promise<number> {
  const { node, donor, sessions, options } = join;
  let mesh = await installedMesh(target);
  if (mesh && mesh.name !== node.name) throw new PgweaveError('mesh-exists', `the database of ${node.name} holds a mesh that calls itself ${mesh.name ?? 'nothing'}`, { hint: 'Nothing was changed. Name another database.' });
  if (mesh) await refuseRows(target, node, mesh);
  else {
    if (options.sql !== undefined) await applySchema(node, options.sql, { signal: options.signal });
    // Tables that were adopted are in no schema file.
    await adoptAsMembers(target, node, [donor, ...join.peers.filter((p) => p.name !== donor.name)].map((p) => sessions.of(p)), (await installedMesh(sessions.of(donor)))!);
    mesh = (await installedMesh(target))!;
  }
  await interleaveKeys(target, sessions.of(donor), node.id);
  await target.query('select _mesh.refuse_writes($1)', [gate(node)]);
  const model = (await installedMesh(sessions.of(donor)))!;
  try {
    sameMesh(new Map([[donor.name, model], [node.name, { ...mesh, name: node.name }]]));
  } catch (error) {
    await takeOff(target);
    throw error;
  }
  await dropOwnEdges(target, options.signal);
  await prepare(join);
  const rows = await loadFromDonor(donor, sessions.of(donor), node, (name, n) => options.onStep?.(`${name}: ${n} rows`), options.signal);
  await failpoint('mesh.add.copied');
  return rows;
}

/** Whether the node takes writes already and all its edges are there. */
async function isTied(join: Join, target: Session): Promise<boolean> {
  const mesh = await installedMesh(target);
  if (mesh?.name !== join.node.name || (await isGated(target))) return false;
  const own = await edgeNames(target);
  for (const peer of join.peers) {
    const theirs = await edgeNames(join.sessions.of(peer));
    if (!own.subscriptions.includes(subscriptionName(join.node.name, peer.name)) || !own.slots.includes(subscriptionName(peer.name, join.node.name))) return false;
    if (!theirs.subscriptions.includes(subscriptionName(peer.name, join.node.name)) || !theirs.slots.includes(subscriptionName(join.node.name, peer.name))) return false;
  }
  return true;
}

/** Whether the node refuses writes of applications. */
async function isGated(target: Session): Promise<boolean> {
  const { kind } = await target.one<{ kind: string }>(`select provolatile::text as kind from pg_catalog.pg_proc where oid = '_mesh.me()'::regprocedure`);
  return kind === 'v';
}

/** A node with rows of its own is not overwritten, unless they are those of a run that broke off. */
async function refuseRows(target: Session, node: MeshNode, mesh: InstalledMesh): Promise<void> {
  if (await isGated(target)) return;
  for (const table of await meshTables(target)) {
    const [row] = await target.query(`select 1 from ${table.rel} limit 1`);
    if (row) throw new PgweaveError('node-not-empty', `table ${table.name} of node ${node.name} holds rows (mesh of ${mesh.members.map((m) => m.name).join(', ')})`, { hint: 'Nothing was changed. A joining node gets its rows from the donor: empty the tables first.' });
  }
}

async function dropOwnEdges(target: Session, signal: AbortSignal | undefined): Promise<void> {
  const edges = await edgeNames(target);
  for (const name of edges.subscriptions) await dropSubscription(target, name);
  for (const name of edges.slots) await dropSlot(target, name, signal);
}

/** A clone of the donor becomes a node of its own. */
async function becomeOneself(join: Join, target: Session): Promise<void> {
  const { node, donor } = join;
  const mesh = await installedMesh(target);
  if (!mesh) throw new PgweaveError('not-a-clone', `the database of ${node.name} holds no mesh`, { hint: `Take the base backup of ${donor.name} after --prepare, and start it.` });
  const [{ workers } = { workers: 1 }] = await target.query<{ workers: number }>(`select pg_catalog.current_setting('max_logical_replication_workers')::int4 as workers`);
  if (workers !== 0 && mesh.name !== node.name) {
    throw new PgweaveError('clone-runs-workers', `${node.name} runs with max_logical_replication_workers = ${workers}: the subscriptions it was cloned with may have taken changes that belong to ${donor.name}`, { hint: 'Throw this clone away, take a new base backup, and start it with max_logical_replication_workers = 0.' });
  }
  if (mesh.name !== node.name && mesh.name !== donor.name) throw new PgweaveError('not-a-clone', `the database of ${node.name} is a clone of ${mesh.name ?? 'nothing'}, not of ${donor.name}`, { hint: `Name the donor: --donor ${mesh.name ?? donor.name}` });
  // What --prepare wrote on the donor and the backup brought along: a node that was seeded with the schema, or half copied, has not got it.
  const [ready] = await target.query<{ ready: boolean }>('select ready from _mesh.node where id = $1', [node.id]);
  if (!ready?.ready) {
    if (mesh.name === node.name) throw new PgweaveError('not-a-clone', `the database of ${node.name} is no base backup of ${donor.name}: it was made with apply-schema, or by an add-node that copies`, { hint: `Nothing was changed. Take the base backup of ${donor.name} after --prepare, or leave --method out to copy rows.` });
    throw new PgweaveError('backup-too-early', `the base backup of ${node.name} was taken before --prepare had ended`, { hint: 'Changes would be missing. Run --prepare again, then take the base backup anew.' });
  }
  const edges = await edgeNames(target);
  for (const name of edges.subscriptions) await dropSubscription(target, name);
  for (const name of edges.slots) await dropSlot(target, name, join.options.signal);
  await target.transaction(async () => {
    const publications = await target.query<{ pubname: string }>(`select p.pubname from pg_catalog.pg_publication p join pg_catalog.pg_publication_rel r on r.prpubid = p.oid where r.prrelid = '_mesh.journal'::regclass`);
    for (const { pubname } of publications) await target.query(`drop publication ${quoteIdent(pubname)}`);
    await target.query('truncate _mesh.journal, _mesh.conflict, _mesh.applied, _mesh.closed');
    // What was dead by the donor's own doing stays tagged with the donor; only the identity changes.
    await target.query('select _mesh.become($1, $2), _mesh.refuse_writes($3)', [node.id, node.name, gate(node)]);
    await target.query(`update _mesh.node set acked = '{}', closed = '{}', seen_at = null`);
    await interleaveKeys(target, join.sessions.of(donor), node.id);
  });
  join.options.onStep?.('the clone has become a node of its own');
  await failpoint('mesh.add.copied');
}

/** Steps 5 and 6: the edges of the new node, then it is a member like the others. */
async function tieIn(join: Join, target: Session): Promise<void> {
  const { node, peers, sessions, options } = join;
  await setMembers(target, [...peers, node], node);
  await ensureApplyRole(target);
  await ensurePublication(target, node);
  for (const peer of peers) await ensureSlot(target, subscriptionName(peer.name, node.name));
  await failpoint('mesh.add.own-slots');
  for (const peer of peers) {
    await ensureSubscription(target, peer, node);
    await failpoint('mesh.add.half-subscribed');
    await ensureSubscription(sessions.of(peer), node, peer);
  }
  options.onStep?.('subscriptions in both directions');
  await failpoint('mesh.add.subscribed');
  await setMembers(target, [...peers, node]);
  await target.query('select _mesh.become($1, $2)', [node.id, node.name]);
  await target.query('update _mesh.node set seen_at = pg_catalog.clock_timestamp() where id = $1', [node.id]);
  await failpoint('mesh.add.open');
  for (const peer of peers) await setMembers(sessions.of(peer), [node]);
  options.onStep?.(`${node.name} is active`);
}

function baseBackupSteps(join: Join): string[] {
  const { donor, node } = join;
  return [
    `On the new server: pg_basebackup -h ${donor.hostForNodes ?? donor.host} -p ${donor.portForNodes ?? donor.port} -U ${donor.user} -D <data directory> -X stream`,
    'Start it with max_logical_replication_workers = 0 (postgres -c max_logical_replication_workers=0): the subscriptions it was cloned with must not run.',
    `pgweave mesh add-node ${node.name} --method base-backup --finish --donor ${donor.name}`,
    'Restart it with the usual settings.',
  ];
}
