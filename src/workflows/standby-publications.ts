import { publicationFacts, publicationTables, type PublicationTableRow } from '../catalog/publications.ts';
import { PgweaveError } from '../core/errors.ts';
import { tableKey, type TableRef } from '../core/tables.ts';
import { quoteIdent } from '../pg/identifiers.ts';
import type { Session } from '../pg/session.ts';

/** A publication that a standby needs from its primary, with the statement that makes it there. */
export interface WantedPublication {
  readonly name: string;
  readonly tables: readonly TableRef[];
  readonly sql: string;
}

/**
 * A standby makes no publications: those of a job that decodes there [hard case 47] are its primary's, and come by replication. Throws `publish-on-primary` with the statements to run there
 * where one is missing or lacks tables; otherwise leaves them as they are, whoever made them.
 */
export async function checkPublishedByPrimary(session: Session, wanted: readonly WantedPublication[]): Promise<void> {
  const missing: string[] = [];
  for (const { name, tables, sql } of wanted) {
    const [facts] = await session.query<{ all_tables: boolean }>(publicationFacts(name));
    const there = new Set((await session.query<PublicationTableRow>(publicationTables(name, session.serverVersion))).map(tableKey));
    if (!facts) missing.push(`${sql};`);
    else if (!facts.all_tables && tables.some((t) => !there.has(tableKey(t)))) missing.push(`drop publication ${quoteIdent(name)}; ${sql};`);
  }
  if (missing.length === 0) return;
  throw new PgweaveError('publish-on-primary', 'the source is a standby, and the publications of the job are not there', { hint: `Run on its primary, then the same command again:\n${missing.join('\n')}` });
}
