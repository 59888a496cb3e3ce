import { filteredTables, publicationFacts, publicationTables, publishable, type PublicationTableRow, type PublishableRow } from '../catalog/publications.ts';
import { PgweaveError } from '../core/errors.ts';
import { jobObjectName } from '../core/job-folder.ts';
import { tableKey, type TableRef } from '../core/tables.ts';
import { displayName, qualifiedName, quoteIdent, quoteLiteral } from '../pg/identifiers.ts';
import type { Session } from '../pg/session.ts';
import { sqlstate, sqlstateOf } from '../pg/sqlstate.ts';
import { checkPublishedByPrimary } from './standby-publications.ts';

export interface JobPublications {
  /** What a stream or subscription names: one or two. */
  readonly names: readonly string[];
  /** Tables whose updates and deletes are not published, since publishing them would make these fail on the source. */
  readonly insertsOnly: readonly TableRef[];
  /** Named but not published: unlogged tables have no WAL. */
  readonly unlogged: readonly TableRef[];
}

export interface PublishedTable extends TableRef {
  /** Row filter, in parentheses; 15 and newer. Its columns must be in the replica identity: workflows/sync/published-tables.ts sees to that. */
  readonly where?: string;
  /** The columns published; 15 and newer. Absent: all. */
  readonly columns?: readonly string[];
}

export interface PublicationOptions {
  readonly job: string;
  /** Ordinary tables and roots of partition trees; a partition whose root is listed may be left out. */
  readonly tables: readonly PublishedTable[];
  /** Changes of partitions are published under their root's name, for targets with another layout [hard case 6]. */
  readonly viaRoot?: boolean;
  /** Default: those of the job ({@link publicationNamesOf}). */
  readonly names?: { readonly all: string; readonly inserts: string } | undefined;
  /** Takes over a publication of that name that somebody else made. Default false: it is refused. */
  readonly adopt?: boolean | undefined;
  /**
   * Makes the second publication even where no table needs it. A stream that names both from its slot on never has to be opened anew: a publication that came later cannot
   * be named while changes from before it are decoded (`publication-missing`), and what is decoded without it lacks its tables. Default false.
   */
  readonly both?: boolean;
  /** Only asks whether the source would take them: everything is rolled back. Default false. */
  readonly takeBack?: boolean;
}

/** Which tables of these publications the source filters itself, by table key; before version 15 none. */
export async function publishedFilters(source: Session, names: readonly string[]): Promise<Map<string, boolean>> {
  if (source.serverVersion < 150_000) return new Map();
  return new Map((await source.query<TableRef & { filtered: boolean }>(filteredTables(names))).map((row) => [tableKey(row), row.filtered]));
}

function mark(job: string): string {
  return `made by pgweave for job ${job}`;
}

/** `pgweave_<job>` for tables with a replica identity, `pgweave_<job>_inserts` for those without. */
export function publicationNamesOf(job: string): { all: string; inserts: string } {
  return { all: jobObjectName(job), inserts: `${jobObjectName(job)}_inserts` };
}

/**
 * Makes a job's publications or brings them to what is listed, in one transaction. Never publishes updates of a table without a replica identity: those go into a second
 * publication that carries inserts and truncates alone. Refuses a publication of that name that is somebody else's. Needs: owner of the tables, CREATE on the database. On a standby it only looks.
 */
export async function ensurePublications(session: Session, options: PublicationOptions): Promise<JobPublications> {
  const rows = await session.query<PublishableRow>(publishable(options.tables.map((t) => t.schema), options.tables.map((t) => t.name)));
  const found = new Set(rows.map(tableKey));
  const missing = options.tables.find((t) => !found.has(tableKey(t)));
  if (missing) throw new PgweaveError('no-such-table', `there is no table ${displayName(missing.schema, missing.name)} to publish`, { hint: 'It was dropped or renamed since the job was planned.' });
  const given = new Map(options.tables.map((t) => [tableKey(t), t]));
  const published = (chosen: (row: PublishableRow) => boolean) => rows.filter((row) => !row.unlogged && chosen(row)).map((row) => given.get(tableKey(row))!);
  const full = published((row) => row.identified);
  const inserts = published((row) => !row.identified);
  const names = options.names ?? publicationNamesOf(options.job);
  const insertsOnly = inserts.map(refOf);
  const unlogged = rows.filter((row) => row.unlogged).map(refOf);
  if ((await session.one<{ standby: boolean }>('select pg_catalog.pg_is_in_recovery() as standby')).standby) {
    const wanted = [{ name: names.all, tables: full, sql: createSql(names.all, full, fully, options.viaRoot) }, ...(inserts.length > 0 ? [{ name: names.inserts, tables: inserts, sql: createSql(names.inserts, inserts, onlyInserts, options.viaRoot) }] : [])];
    await checkPublishedByPrimary(session, wanted);
    return { names: wanted.map((w) => w.name), insertsOnly, unlogged };
  }
  try {
    await session.transaction(async () => {
      await reconcile(session, options, names.all, full, fully);
      if (inserts.length > 0 || options.both) await reconcile(session, options, names.inserts, inserts, onlyInserts);
      else if ((await session.query<{ comment: string | null }>(publicationFacts(names.inserts)))[0]?.comment === mark(options.job)) await session.query(`drop publication ${quoteIdent(names.inserts)}`);
      if (options.takeBack) throw takenBack;
    });
  } catch (error) {
    if (error !== takenBack) throw refusal(session, options, error);
  }
  return { names: inserts.length > 0 || options.both ? [names.all, names.inserts] : [names.all], insertsOnly, unlogged };
}

/** What a publication publishes. */
const fully = 'insert, update, delete, truncate';
const onlyInserts = 'insert, truncate';

function createSql(name: string, tables: readonly PublishedTable[], publish: string, viaRoot = false): string {
  return `create publication ${quoteIdent(name)}${tables.length === 0 ? '' : ` for table ${tables.map(tableClause).join(', ')}`} with (publish = ${quoteLiteral(publish)}, publish_via_partition_root = ${viaRoot})`;
}

/** Ends the transaction of publications that were only tried. */
const takenBack = new Error('taken back');

/** What the source refused publications with, in terms of what to do. */
function refusal(session: Session, options: PublicationOptions, error: unknown): unknown {
  const filtered = options.tables.filter((t) => t.where !== undefined);
  if (sqlstateOf(error) === sqlstate.featureNotSupported && filtered.length > 0) {
    // Functions, operators and types of users, and built-in ones that are not immutable. Source: check_simple_rowfilter_expr_walker, publicationcmds.c.
    const { message, detail } = error as { message: string; detail?: string };
    return new PgweaveError('cannot-publish', `the source takes no such row filter into a publication: ${message}${detail === undefined ? '' : ` (${detail.replace(/\.$/, '')})`}\n${filtered.map((t) => `${displayName(t.schema, t.name)}: ${t.where}`).join('\n')}`, {
      hint: 'Write it with immutable functions, operators and types of PostgreSQL itself, or follow with pgweave itself, which filters by any: pgweave clone --follow.', exitCode: 3, cause: error,
    });
  }
  if (sqlstateOf(error) !== sqlstate.insufficientPrivilege) return error;
  return new PgweaveError('may-not-publish', `role "${session.spec.user}" may not publish every table: ${(error as Error).message}`, {
    hint: `It must own the tables and have CREATE on the database: GRANT CREATE ON DATABASE ${quoteIdent(session.spec.database)} TO ${quoteIdent(session.spec.user)}; or let the owner make the publications.`, cause: error,
  });
}

/** Removes a job's publications. Those of the same name that are not ours stay. */
export async function dropPublications(session: Session, job: string, names: { readonly all: string; readonly inserts: string } = publicationNamesOf(job)): Promise<void> {
  for (const name of Object.values(names)) {
    const [facts] = await session.query<{ comment: string | null }>(publicationFacts(name));
    if (facts?.comment === mark(job)) await session.query(`drop publication ${quoteIdent(name)}`);
  }
}

async function reconcile(session: Session, options: PublicationOptions, name: string, tables: readonly PublishedTable[], publish: string): Promise<void> {
  const [facts] = await session.query<{ comment: string | null; via_root: boolean }>(publicationFacts(name));
  const viaRoot = options.viaRoot ?? false;
  if (!facts) {
    await session.query(createSql(name, tables, publish, viaRoot));
    await session.query(`comment on publication ${quoteIdent(name)} is ${quoteLiteral(mark(options.job))}`);
    return;
  }
  if (facts.comment !== mark(options.job) && options.adopt) await session.query(`comment on publication ${quoteIdent(name)} is ${quoteLiteral(mark(options.job))}`);
  else if (facts.comment !== mark(options.job)) {
    throw new PgweaveError('publication-not-ours', `publication ${name} is there already and was not made by this job`, { hint: `Choose another --job, or remove it if nobody uses it: DROP PUBLICATION ${quoteIdent(name)};`, exitCode: 2 });
  }
  if (facts.via_root !== viaRoot) await session.query(`alter publication ${quoteIdent(name)} set (publish_via_partition_root = ${viaRoot})`);
  const read = async () => new Map((await session.query<PublicationTableRow>(publicationTables(name, session.serverVersion))).map((row) => [tableKey(row), row]));
  const now = await read();
  const wanted = new Set(tables.map(tableKey));
  const changed = tables.filter((t) => {
    const row = now.get(tableKey(t));
    return row !== undefined && !(sameColumns(row, t) && (row.filter === null) === (t.where === undefined));
  });
  const add = [...tables.filter((t) => !now.has(tableKey(t))), ...changed];
  const drop = [...[...now].filter(([key]) => !wanted.has(key)).map(([, row]) => row), ...changed];
  // ADD and DROP leave the other tables alone, where SET TABLE would lock them all.
  const apply = async (gone: readonly TableRef[], come: readonly PublishedTable[]) => {
    if (gone.length > 0) await session.query(`alter publication ${quoteIdent(name)} drop table ${gone.map((t) => qualifiedName(t.schema, t.name)).join(', ')}`);
    if (come.length > 0) await session.query(`alter publication ${quoteIdent(name)} add table ${come.map(tableClause).join(', ')}`);
  };
  await apply(drop, add);
  // The server keeps a filter in words of its own: set it anew, and take that back where it comes out the same.
  const filtered = tables.filter((t) => t.where !== undefined && !add.includes(t));
  if (filtered.length === 0) return;
  await session.query('savepoint pgweave_filters');
  await apply(filtered, filtered);
  const then = await read();
  const same = filtered.every((t) => then.get(tableKey(t))?.filter === now.get(tableKey(t))?.filter);
  await session.query(same ? 'rollback to savepoint pgweave_filters' : 'release savepoint pgweave_filters');
}

function sameColumns(row: PublicationTableRow, table: PublishedTable): boolean {
  const wanted = table.columns;
  if (wanted === undefined || row.columns === null) return wanted === undefined && row.columns === null;
  return wanted.length === row.columns.length && wanted.every((name) => row.columns!.includes(name));
}

function tableClause(table: PublishedTable): string {
  return `${qualifiedName(table.schema, table.name)}${table.columns === undefined ? '' : ` (${table.columns.map(quoteIdent).join(', ')})`}${table.where === undefined ? '' : ` where ${table.where}`}`;
}

function refOf(row: TableRef): TableRef {
  return { schema: row.schema, name: row.name };
}
