import { mayReadControl, serverIdentity, type ServerIdentityRow } from '../../catalog/server-identity.ts';
import { PgweaveError } from '../../core/errors.ts';
import type { ServerFacts } from '../../core/events.ts';
import type { ConnectionSpec } from '../../pg/conninfo.ts';
import { Session } from '../../pg/session.ts';
import { serverFacts } from '../server-facts.ts';

/** One side of a job, with what is asked of it once. */
export interface End {
  readonly spec: ConnectionSpec;
  readonly session: Session;
  readonly facts: ServerFacts;
  readonly identity: ServerIdentityRow;
}

/** Connects and asks who answers. */
export async function openEnd(spec: ConnectionSpec, side: 'source' | 'target', job: string, signal: AbortSignal): Promise<End> {
  const session = await Session.open(spec, { role: side, job, side: `the ${side}`, signal });
  try {
    const { allowed } = await session.one<{ allowed: boolean }>(mayReadControl());
    const identity = await session.one<ServerIdentityRow>(serverIdentity(allowed));
    const facts = await serverFacts(session);
    return { spec, session, facts, identity };
  } catch (error) {
    await session.close();
    throw error;
  }
}

/** Refuses what cannot be a copy from one database to another. */
export function checkEnds(source: End, target: End, mode: 'clone' | 'follow' | 'sync' = 'clone'): void {
  const a = source.identity;
  const b = target.identity;
  const sameServer = a.system_identifier !== null && b.system_identifier !== null ? a.system_identifier === b.system_identifier : source.facts.host === target.facts.host && source.facts.port === target.facts.port;
  // A standby and its primary are one database too.
  if (sameServer && a.database_oid === b.database_oid && a.database === b.database) {
    throw new PgweaveError('source-equals-target', `source and target are the same database: ${a.database} at ${source.facts.host}:${source.facts.port}`, { hint: 'Give another database as --target.', exitCode: 2, retry: 'never' });
  }
  if (b.in_recovery) throw new PgweaveError('target-is-standby', `the target ${target.facts.host}:${target.facts.port} is a standby and takes no writes`, { hint: 'Give its primary as --target.' });
  if (mode !== 'clone' && a.in_recovery && source.session.serverVersion < 160_000) {
    throw new PgweaveError('standby-cannot-decode', `the source ${source.facts.host}:${source.facts.port} is a standby of PostgreSQL ${source.facts.version}, and standbys decode changes from 16 on`, { hint: 'Give its primary as --source; without --follow and --sync a standby can be copied.', exitCode: 2, retry: 'never' });
  }
  if (Math.floor(source.session.serverVersion / 10_000) < 13) {
    throw new PgweaveError('source-too-old', `the source is PostgreSQL ${source.facts.version}`, { hint: 'pgweave copies from PostgreSQL 13 and newer; it is tested with 14 to 18.' });
  }
}
