import { errorMessage, PgweaveError } from '../core/errors.ts';
import { fanOut, type Emit, type JobEvent } from '../core/events.ts';
import { sleep } from '../core/abort.ts';
import { formatCount, formatDuration } from '../core/units.ts';
import { parseConninfo, type ConnectionSpec } from '../pg/conninfo.ts';
import { Session } from '../pg/session.ts';
import { hasServer, type EmbeddedVersion } from '../servers/binaries.ts';
import { startCluster, type Cluster } from '../servers/cluster.ts';
import { clone } from './clone.ts';
import { compare } from './compare.ts';
import { follow } from './follow.ts';
import { runSwitchover } from './run-switchover.ts';
import { generateShop } from './demo/shop.ts';
import { ShopWriter, type WriterResult } from './demo/writer.ts';

export interface DemoOptions {
  /** Size of the shop; 1 is some 80 MB. */
  readonly scale: number;
  readonly job: string;
  /** Leave the servers up at the end. */
  readonly keep: boolean;
  /** How long the writer goes on after the switchover, milliseconds. */
  readonly writeAfterMs: number;
  /** What happens, a line each, for people. */
  readonly say: (text: string) => void;
  /** Rows generated so far. */
  readonly onGenerate: (done: number, total: number, table: string) => void;
  /** Called around the migration, so that a live view stands there and nowhere else. */
  readonly onMigration: (running: boolean) => void;
  readonly onEvent: Emit;
  readonly signal: AbortSignal;
}

export interface DemoResult {
  readonly source: string;
  readonly target: string;
  readonly rows: number;
  readonly refusedMs: number;
  readonly writer: WriterResult;
  /** Acknowledged transactions that the new primary does not hold: 0, or the demo has found a fault. */
  readonly missing: number;
  readonly schemaDifferences: number;
  readonly kept: boolean;
  /** Where kept servers run; empty where they are stopped. */
  readonly servers: readonly { readonly pid: number; readonly folder: string }[];
}

/** A whole migration on two embedded servers: generate, write all the time, copy, follow, compare, switch over, count. Stops and removes the servers at the end, however it ends, unless they are to be kept. */
export async function demo(options: DemoOptions): Promise<DemoResult> {
  const [from, to] = versions();
  options.say(`Two servers of our own, on loopback: PostgreSQL ${from} with a shop, and an empty PostgreSQL ${to}.`);
  const started = performance.now();
  const clusters = await Promise.allSettled([from, to].map((version) => startCluster({ version })));
  const up = clusters.flatMap((c) => (c.status === 'fulfilled' ? [c.value] : []));
  let done = false;
  try {
    const failed = clusters.find((c) => c.status === 'rejected');
    if (failed) throw failed.reason;
    const [old, fresh] = up as [Cluster, Cluster];
    for (const cluster of [old, fresh]) {
      await using admin = await Session.open(parseConninfo(cluster.uri()), { role: 'demo', signal: options.signal });
      await admin.query('create database shop');
    }
    options.say(`Started in ${formatDuration(performance.now() - started)}.`);
    const result = await migrate(options, old.uri('shop'), fresh.uri('shop'));
    done = true;
    return { ...result, servers: options.keep ? up.map((cluster) => ({ pid: cluster.pid!, folder: cluster.folder })) : [] };
  } finally {
    if (options.keep && done) for (const cluster of up) cluster.leaveRunning();
    else await Promise.all(up.map((cluster) => cluster.destroy()));
  }
}

/** Two majors that are installed here, oldest of the pair first. */
function versions(): [EmbeddedVersion, EmbeddedVersion] {
  const pairs: [EmbeddedVersion, EmbeddedVersion][] = [[15, 18], [16, 18], [14, 18], [15, 17], [14, 17]];
  const pair = pairs.find(([a, b]) => hasServer(a) && hasServer(b));
  if (!pair) throw new PgweaveError('no-server-binaries', 'the demo needs two PostgreSQL servers and they are not installed', { hint: 'They come as optional npm packages: install pgweave without --omit=optional.' });
  return pair;
}

async function migrate(options: DemoOptions, sourceUri: string, targetUri: string): Promise<Omit<DemoResult, 'servers'>> {
  const { say, job, signal } = options;
  const source = parseConninfo(sourceUri);
  const target = parseConninfo(targetUri);
  const rows = await generate(options, source);
  say(`The shop holds ${formatCount(rows)} rows. From now on an application writes to it without a pause.`);

  let primary: ConnectionSpec = source;
  const writer = new ShopWriter(1, () => primary);
  writer.start();
  const stop = new AbortController();
  const stopped = AbortSignal.any([signal, stop.signal]);
  let following: Promise<unknown> = Promise.resolve();
  try {
    options.onMigration(true);
    const cloned = await clone({ source, target, job, mode: 'follow', jobs: 2, signal, onEvent: options.onEvent });
    const streaming = phaseReached('streaming');
    following = follow({ source, target, job, signal: stopped, onEvent: fanOut(options.onEvent, streaming.emit) });
    following.catch(() => undefined);
    await Promise.race([streaming.reached, following]);
    await sleep(1500, signal);
    options.onMigration(false);
    say(`Copied ${formatCount(cloned.tables)} tables, ${formatCount(cloned.rows)} rows and ${formatCount(cloned.indexes)} indexes in ${formatDuration(cloned.elapsedMs)}; the target follows. The application has made ${formatCount(writer.count)} commits meanwhile.`);

    const { differences } = await compare({ source, target, signal });
    say(differences.length === 0 ? 'Both schemas are equal, object by object.' : `The schemas differ: ${differences.map((d) => `${d.object} ${d.change}`).join(', ')}.`);

    say('Switching over while the application writes:');
    const switched = await runSwitchover({ source, target, job, verify: true, reverse: true, signal, onEvent: options.onEvent });
    primary = target;
    await following;
    say(`Writes were refused for ${formatDuration(switched.refusedMs)}. The application goes on at the new primary.`);
    await sleep(options.writeAfterMs, signal);
    const wrote = await writer.stop();
    await using session = await Session.open(target, { role: 'demo', signal });
    const missing = await writer.missingIn(session);
    say(`${formatCount(wrote.acknowledged)} commits were acknowledged to the application; ${missing === 0 ? 'none is missing' : `${formatCount(missing)} ARE MISSING`} on the new primary. Its longest wait for a commit was ${formatDuration(wrote.longestGapMs)}.`);
    return { source: sourceUri, target: targetUri, rows, refusedMs: switched.refusedMs, writer: wrote, missing, schemaDifferences: differences.length, kept: options.keep };
  } finally {
    options.onMigration(false);
    await writer.stop().catch((error: unknown) => say(`The application failed: ${errorMessage(error)}`));
    stop.abort();
    await following.catch(() => undefined);
  }
}

async function generate(options: DemoOptions, source: ConnectionSpec): Promise<number> {
  await using session = await Session.open(source, { role: 'demo', signal: options.signal });
  return await generateShop(session, options.scale, options.onGenerate);
}

function phaseReached(phase: string): { readonly emit: Emit; readonly reached: Promise<void> } {
  let resolve: () => void = () => undefined;
  const reached = new Promise<void>((r) => {
    resolve = r;
  });
  return { reached, emit: (event: JobEvent) => (event.type === 'phase' && event.phase === phase ? resolve() : undefined) };
}
