import { systemIdentifier } from '../catalog/server-identity.ts';
import { publicationFacts, publicationTables, type PublicationTableRow } from '../catalog/publications.ts';
import type { Batch, ChangeLog, ChangeLogPosition, ReadOptions } from '../changes/change-log.ts';
import { logName } from '../changes/nats/log-message.ts';
import { NatsLog, type NatsLogOptions } from '../changes/nats/nats-log.ts';
import { PgweaveError } from '../core/errors.ts';
import { fingerprint, jobObjectName } from '../core/job-folder.ts';
import { tableKey, type TableRef } from '../core/tables.ts';
import { displayName } from '../pg/identifiers.ts';
import type { Lsn } from '../pg/lsn.ts';
import type { Session } from '../pg/session.ts';
import { publicationNamesOf } from '../workflows/publications.ts';
import { readSlot } from '../workflows/sync/start-point.ts';
import type { FanoutConfig } from './config.ts';
import { TableFilter } from './table-filter.ts';

/** The job whose slot and publication the publisher of a log on NATS has. */
export function natsJobOf(config: FanoutConfig): string {
  return `${fingerprint(config.publication).slice(0, 4)}_nats`;
}

/** What the messages of the log say of their source. */
export async function natsLogNameOf(config: FanoutConfig, source: Session): Promise<string> {
  const { id } = await source.one<{ id: string }>(systemIdentifier());
  return logName(id, config.source.database, jobObjectName(natsJobOf(config)));
}

/** The publisher's publications. Throws `no-publisher` where there are none, `not-published` where one of the tables is in none. */
export async function publicationsByPublisher(source: Session, config: FanoutConfig, tables: readonly TableRef[]): Promise<string[]> {
  const names: string[] = [];
  const published = new Set<string>();
  for (const name of Object.values(publicationNamesOf(natsJobOf(config)))) {
    if ((await source.query(publicationFacts(name))).length === 0) continue;
    names.push(name);
    for (const row of await source.query<PublicationTableRow & Record<string, unknown>>(publicationTables(name, source.serverVersion))) published.add(tableKey(row));
  }
  if (names.length === 0) throw noPublisherError('nobody publishes this source yet');
  const missing = tables.filter((t) => !published.has(tableKey(t)));
  if (missing.length > 0) {
    throw new PgweaveError('not-published', `the publisher does not publish ${missing.slice(0, 5).map((t) => displayName(t.schema, t.name)).join(', ')}${missing.length > 5 ? `, and ${missing.length - 5} more` : ''}`, {
      retry: 'backoff', hint: 'Add what is missing to tables in the configuration of pgweave fanout publish; it takes the change while it runs.',
    });
  }
  return names;
}

/** Throws `no-publisher` where nothing reads the publisher's slot: what is written on the source reaches nobody. */
export async function checkPublisher(source: Session, config: FanoutConfig): Promise<void> {
  const slot = jobObjectName(natsJobOf(config));
  const there = await readSlot(source, slot);
  if (there?.active_pid === null || !there) throw noPublisherError(there ? `nothing reads the slot ${slot}` : `there is no slot ${slot} on the source`);
}

function noPublisherError(why: string): PgweaveError {
  return new PgweaveError('no-publisher', `no publisher runs: ${why}`, { retry: 'backoff', hint: 'Start it: pgweave fanout publish, with the same publication_name and log. Nothing is lost meanwhile: the source keeps its WAL.' });
}

/** One target's part of the log on NATS. */
export class NatsTargetLog implements ChangeLog {
  readonly #log: NatsLog;
  readonly #filter: TableFilter;

  private constructor(log: NatsLog, wanted: () => ReadonlySet<string>) {
    this.#log = log;
    this.#filter = new TableFilter(wanted);
  }

  static async open(options: NatsLogOptions & { readonly wanted: () => ReadonlySet<string> }): Promise<NatsTargetLog> {
    const { wanted, ...log } = options;
    return new NatsTargetLog(await NatsLog.open(log), wanted);
  }

  async read(options: ReadOptions): Promise<Batch> {
    const batch = await this.#log.read(options);
    return batch.kind === 'large' ? { kind: 'large', transaction: this.#filter.large(batch.transaction) } : { ...batch, transactions: batch.transactions.map((t) => this.#filter.transaction(t)) };
  }

  confirm(endLsn: Lsn): void {
    this.#log.confirm(endLsn);
  }

  rewind(): Promise<void> {
    return this.#log.rewind();
  }

  position(): ChangeLogPosition {
    return this.#log.position();
  }

  waitUntilConfirmed(lsn: Lsn, signal?: AbortSignal): Promise<void> {
    return this.#log.waitUntilConfirmed(lsn, signal);
  }

  close(): Promise<void> {
    return this.#log.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
