import { errorMessage, PgweaveError } from '../core/errors.ts';
import { Session } from '../pg/session.ts';
import { sqlstateOf } from '../pg/sqlstate.ts';
import { advice, check, flagFix, type Check } from './check.ts';
import { decodes, type CheckedServer, type PreflightContext } from './context.ts';
import { directConnectionFix } from './provider-fixes.ts';

/**
 * Poolers and proxies [26]. A pooler hands out process ids of its own for cancelling, so the id of the protocol differs from what the backend says;
 * it may refuse startup options (PgBouncer: SQLSTATE 08P01); and if two open connections share one backend, it pools by transaction.
 */
export async function poolerCheck(server: CheckedServer, context: PreflightContext): Promise<Check[]> {
  const { session, side, provider } = server;
  const id = `${side}-pooler`;
  const backend = (await session.one<{ pid: number }>('select pg_catalog.pg_backend_pid() as pid')).pid;
  const facts: Record<string, unknown> = { protocolPid: session.pid, backendPid: backend };
  const fix = directConnectionFix(side, provider, session.host.host);
  const open = (startupOptions?: Readonly<Record<string, string>>) => Session.open({ ...session.spec, hosts: [session.host] }, { role: 'preflight', job: context.kind.job, side: `the ${side}`, signal: context.signal, ...(startupOptions ? { startupOptions } : {}) });
  const pids: number[] = [];
  {
    await using second = await open();
    await second.transaction(async () => {
      pids.push((await second.one<{ pid: number }>('select pg_catalog.pg_backend_pid() as pid')).pid);
    });
    pids.push((await session.one<{ pid: number }>('select pg_catalog.pg_backend_pid() as pid')).pid);
  }
  const shared = pids.includes(backend) && pids[0] === backend;
  const moved = pids[1] !== backend;
  facts['transactionPooling'] = shared || moved;
  if (shared || moved) return [check(id, side, 'fail', `a pooler that shares backends between transactions stands before the ${side}: snapshots, settings and replication do not survive it`, { facts, fix })];
  let refused: string | undefined;
  try {
    await using third = await open({ extra_float_digits: '3' });
    facts['startupOptions'] = (await third.one<{ pid: number }>('select pg_catalog.pg_backend_pid() as pid')).pid > 0;
  } catch (error) {
    // The session came up without options a moment ago; what is refused now is the options.
    const state = error instanceof PgweaveError ? sqlstateOf(error.cause) : sqlstateOf(error);
    if (state !== '08P01' && state !== '42501' && state !== '0A000') throw error;
    refused = errorMessage(error);
    facts['startupOptions'] = false;
  }
  if (session.pid !== backend || refused !== undefined) {
    return [check(id, side, decodes(context.kind) && side === 'source' ? 'fail' : 'warn', `a pooler or proxy stands before the ${side}${refused === undefined ? ' (its process ids are not the server\'s)' : ' (it refuses startup options)'}: connect to the server itself`, { facts, fix })];
  }
  return [check(id, side, 'ok', `direct connection to the ${side}`, { facts })];
}

/** A replication connection must be let in as well: pg_hba.conf, poolers and proxies treat it apart. */
export async function replicationConnectionCheck(source: CheckedServer, context: PreflightContext): Promise<Check[]> {
  if (!decodes(context.kind) || source.settings.get('wal_level')?.setting !== 'logical') return [];
  try {
    await using walsender = await Session.open({ ...source.session.spec, hosts: [source.session.host] }, { role: 'preflight', job: context.kind.job, side: 'the source', replication: true, signal: context.signal });
    const [system] = await walsender.query<{ systemid: string; dbname: string }>('IDENTIFY_SYSTEM');
    return [check('replication-connection', 'source', 'ok', 'replication connections are let in', { facts: { system: system?.systemid ?? null } })];
  } catch (error) {
    const state = error instanceof PgweaveError ? sqlstateOf(error.cause) : sqlstateOf(error);
    const role = source.rights.role;
    const hba = state === '28000';
    return [check('replication-connection', 'source', 'fail', `a replication connection is refused: ${errorMessage(error)}`, {
      facts: { sqlstate: state ?? null },
      fix: hba && source.provider === 'self-hosted'
        ? { on: 'source', kind: 'configuration', text: `pg_hba.conf: host ${source.identity.database} ${role} <this machine>/32 scram-sha-256   (logical replication is matched by the database's name, not by the word replication), then: select pg_reload_conf();` }
        : state === '42501' ? advice('source', `see replication-role: role ${role} needs the right first`) : directConnectionFix('source', source.provider, source.session.host.host),
    })];
  }
}

/** With --sync it is the target server that connects to the source: an address that only means this machine leads it to itself. */
export function subscriptionAddressCheck(source: CheckedServer, target: CheckedServer, context: PreflightContext): Check[] {
  if (context.kind.mode !== 'sync') return [];
  const local = (host: string) => host.startsWith('/') || ['localhost', '127.0.0.1', '::1'].includes(host);
  const { host: from, port } = context.kind.sourceForTarget?.hosts[0] ?? source.session.host;
  const facts = { sourceHost: from, targetHost: target.session.host.host };
  if (local(from) && !local(target.session.host.host)) return [check('subscription-address', 'both', 'fail', `the target connects to the source itself, and ${from} means the target's own machine there`, { facts, fix: flagFix('--source-for-target URI (the address at which the target server reaches the source)') })];
  return [check('subscription-address', 'both', 'ok', `the target will connect to ${from}:${port}; whether it gets there is seen when the subscription is made`, { facts })];
}
