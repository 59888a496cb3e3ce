import { PgweaveError } from '../core/errors.ts';
import { Session } from '../pg/session.ts';
import { bundledDumpMajor, runBundledDump } from './bundled-dump.ts';
import { canConnect, libpqEnvironment, runSystemDump, systemDumpers } from './system-dump.ts';

export interface DumpOptions {
  /** A session with the source: tells which host answered and its version. The dump runs on a connection of its own to the same host. */
  readonly source: Session;
  /** Name of an exported snapshot in which to read; without it, pg_dump's own. */
  readonly snapshot?: string;
  /** `auto`: the newest pg_dump of this machine that knows the server's version, else the bundled one. */
  readonly dumper?: 'auto' | 'system' | 'bundled';
  readonly job?: string;
  readonly signal?: AbortSignal | undefined;
}

export interface SchemaDump {
  /** What `pg_dump --schema-only` printed, all identifiers quoted. */
  readonly text: string;
  /** For people: `pg_dump 15.20 (/usr/lib/postgresql/15/bin/pg_dump)`, `bundled pg_dump 18`. */
  readonly dumper: string;
}

/**
 * Reads a database's schema with pg_dump, without publications, subscriptions and our own schema. A pg_dump older than the server
 * refuses to work, so one that is new enough is chosen [hard case 29]. Throws `dump-failed` with pg_dump's words.
 */
export async function dumpSchema(options: DumpOptions): Promise<SchemaDump> {
  const { source, snapshot, job, signal } = options;
  const major = Math.floor(source.serverVersion / 10_000);
  const spec = { ...source.spec, hosts: [source.host], targetSessionAttrs: 'any' as const };
  // Newer servers reserve words that older ones do not: quoting everything makes the text good for any target.
  const args = ['--schema-only', '--encoding=UTF8', '--quote-all-identifiers', '--no-publications', '--no-subscriptions', '--exclude-schema=pgweave', ...(snapshot === undefined ? [] : [`--snapshot=${snapshot}`])];
  if (options.dumper !== 'bundled') {
    const dumper = (await systemDumpers()).find((candidate) => candidate.major >= major && canConnect(candidate, spec));
    if (dumper) {
      const text = await runSystemDump(dumper, args, libpqEnvironment(spec, source.host, `pgweave ${job ? `${job} ` : ''}dump`), signal);
      return { text, dumper: `pg_dump ${dumper.version} (${dumper.path})` };
    }
    if (options.dumper === 'system') throw new PgweaveError('no-pg-dump', `no pg_dump of version ${major} or newer is installed here`, { hint: `Install postgresql-client-${major}, or let the bundled one do it.` });
  }
  if (major > bundledDumpMajor) {
    throw new PgweaveError('no-pg-dump', `the source is PostgreSQL ${major}, and the bundled pg_dump knows versions up to ${bundledDumpMajor}`, { hint: `Install pg_dump ${major} or newer (package postgresql-client-${major}) where pgweave runs.` });
  }
  const session = await Session.open(spec, { role: 'dump', side: 'the source', ...(job === undefined ? {} : { job }) });
  try {
    return { text: await runBundledDump(session, args, signal), dumper: `bundled pg_dump ${bundledDumpMajor}` };
  } finally {
    await session.close();
  }
}
