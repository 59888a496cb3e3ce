import { copyColumns, copyTypes, type CopyColumnRow, type CopyTypeRow } from '../../catalog/copy-tables.ts';
import { leavesOf, publicationsOf, type LeafRow } from '../../catalog/stream-tables.ts';
import { tableRecordSql } from '../../changes/table-states.ts';
import { binarySafeTypes } from '../../copy/binary-safe.ts';
import { relayCopy, slabBytes } from '../../copy/relay.ts';
import { openSlotSnapshot } from '../../copy/snapshot.ts';
import { readApplyTarget } from '../../catalog/apply-target.ts';
import { PgweaveError } from '../../core/errors.ts';
import type { Emit } from '../../core/events.ts';
import { failpoint } from '../../core/failpoints.ts';
import { jobObjectName } from '../../core/job-folder.ts';
import type { TableRef } from '../../core/tables.ts';
import type { ConnectionSpec } from '../../pg/conninfo.ts';
import { displayName, qualifiedName, quoteIdent, quoteLiteral } from '../../pg/identifiers.ts';
import { formatLsn, type Lsn } from '../../pg/lsn.ts';
import { Session } from '../../pg/session.ts';
import { sqlstate, sqlstateOf } from '../../pg/sqlstate.ts';
import { WireConnection } from '../../pg/wire-connection.ts';
import { publishableFilters } from '../clone/filtered-stream.ts';
import { publicationNamesOf } from '../publications.ts';
import type { TableRules } from './table-rules.ts';

export interface RecopyOptions {
  readonly source: ConnectionSpec;
  readonly target: ConnectionSpec;
  readonly job: string;
  readonly emit: Emit;
  /** Names on the target, columns and rows that are left out. */
  readonly rules: TableRules;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Copies one table anew while everything else streams: in the snapshot of a temporary slot, whose LSN becomes the table's; emptying it, its rows and its state `copied` are
 * one transaction on the target. A partitioned table is read leaf by leaf and written through its root, whatever its layout on the target. A table that is not
 * published yet joins the job's publication first, so that no change falls between. Returns the LSN.
 */
export async function recopyTable(options: RecopyOptions, table: TableRef): Promise<Lsn> {
  const { source, target, job, emit, signal } = options;
  await publishTable(options, table);
  await using snapshot = await openSlotSnapshot(source, { job, slot: `${jobObjectName(job)}_copy_${process.pid.toString(36)}${(recopies += 1)}`, temporary: true, signal });
  const lsn = snapshot.lsn!;
  const leaves = await snapshot.session.query<LeafRow>(leavesOf(table));
  const [first] = leaves;
  if (!first) throw new PgweaveError('no-such-table', `the source has no table ${displayName(table.schema, table.name)}`, { retry: 'manual' });
  await using control = await Session.open(target, { role: 'copy', job, side: 'the target', signal });
  const on = await readApplyTarget(control, options.rules.mapTable(table));
  if (!on) throw new PgweaveError('target-table-missing', `the target has no table ${displayName(table.schema, table.name)}`, { hint: 'Create it there as it is on the source, then copy it again.' });
  const excluded = new Set(options.rules.excludedColumns(table));
  const columns = (await snapshot.session.query<CopyColumnRow>(copyColumns([first.oid]))).filter((c) => !c.generated && !excluded.has(c.name) && !on.columns.some((t) => t.name === c.name && t.generated));
  const lacking = columns.filter((c) => !on.columns.some((t) => t.name === c.name));
  if (lacking.length > 0) throw new PgweaveError('target-column-missing', `${displayName(table.schema, table.name)} on the target lacks ${lacking.map((c) => quoteIdent(c.name)).join(', ')}`, { hint: 'Add what is missing there, then copy it again.' });
  const safe = binarySafeTypes(await snapshot.session.query<CopyTypeRow>(copyTypes([...new Set(columns.map((c) => c.type_oid))])));
  const { encoding } = await snapshot.session.one<{ encoding: string }>(`select pg_catalog.current_setting('server_encoding') as encoding`);
  const { encoding: targetEncoding } = await control.one<{ encoding: string }>(`select pg_catalog.current_setting('server_encoding') as encoding`);
  const binary = columns.length > 0 && encoding === targetEncoding && columns.every((c) => safe.has(c.type_oid) && on.columns.find((t) => t.name === c.name)?.type === c.type);
  const wire = { job, ...(signal === undefined ? {} : { signal }) };
  await using from = await WireConnection.open(source, { ...wire, role: 'copy', side: 'the source' });
  await using to = await WireConnection.open(target, { ...wire, role: 'copy', side: 'the target' });
  await from.query(`set client_encoding = ${quoteLiteral(encoding)}; set lc_monetary = 'C'; begin isolation level repeatable read read only; set transaction snapshot ${quoteLiteral(snapshot.id)}`);
  await prepareTarget(to, job, encoding);
  const name = qualifiedName(on.schema, on.name);
  const list = columns.map((c) => quoteIdent(c.name)).join(', ');
  const format = binary ? 'format binary' : 'format text';
  await to.query('begin');
  await emptyTable(to, name, on.kind === 'r');
  const slab = Buffer.allocUnsafeSlow(slabBytes);
  for (const [i, leaf] of leaves.entries()) {
    emit({ type: 'copy-part', table, part: i + 1, status: 'started' });
    const condition = options.rules.rowCondition(leaf) ?? options.rules.rowCondition(table);
    await relayCopy(
      from, to, { copyOut: `copy (select ${list} from only ${qualifiedName(leaf.schema, leaf.name)}${condition === undefined ? '' : ` where ${condition}`}) to stdout with (${format})`, copyIn: `copy ${name}${list === '' ? '' : ` (${list})`} from stdin with (${format})` },
      (bytes, rows) => emit({ type: 'copy-progress', table, part: i + 1, bytes, rows }), slab,
    );
    emit({ type: 'copy-part', table, part: i + 1, status: 'done' });
  }
  await failpoint('recopy.before-commit');
  await to.query(tableRecordSql(job, { schema: table.schema, name: table.name, state: { name: 'copied', lsn: formatLsn(lsn) }, copiedLsn: lsn, pausedLsn: undefined, rowKey: undefined, sqlstate: undefined }));
  await to.query('commit');
  return lsn;
}

let recopies = 0;

/** Silent triggers, and an origin of its own, so that a stream back with `origin = none` leaves these rows out. */
async function prepareTarget(to: WireConnection, job: string, encoding: string): Promise<void> {
  await to.query(`set client_encoding = ${quoteLiteral(encoding)}; set lc_monetary = 'C'; set default_transaction_read_only = off`);
  const origin = quoteLiteral(`${jobObjectName(job)}_copy`);
  for (const sql of [
    'set session_replication_role = replica',
    `select pg_catalog.pg_replication_origin_create(${origin}) where not exists (select 1 from pg_catalog.pg_replication_origin where roname = ${origin})`,
    `select pg_catalog.pg_replication_origin_session_setup(${origin})`,
  ]) {
    try {
      await to.query(sql);
    } catch (error) {
      // Without the privilege the rows are written as anybody's; another copy may make the origin, or hold it, at this moment.
      const state = sqlstateOf(error);
      if (state !== sqlstate.insufficientPrivilege && state !== sqlstate.uniqueViolation && state !== sqlstate.objectInUse) throw error;
    }
  }
}

/** TRUNCATE where it may, else DELETE: a foreign key from a table outside forbids the first. */
async function emptyTable(to: WireConnection, name: string, plain: boolean): Promise<void> {
  const only = plain ? 'only ' : '';
  await to.query('savepoint emptied');
  try {
    await to.query(`truncate ${only}${name}`);
  } catch (error) {
    const state = sqlstateOf(error);
    if (state !== sqlstate.featureNotSupported && state !== sqlstate.insufficientPrivilege && state !== '42809') throw error;
    await to.query(`rollback to savepoint emptied; delete from ${only}${name}`);
  }
}

/** Adds a table to the job's publication where it is not in one, with its row filter where the source can apply it; one without a replica identity goes where only inserts are published. */
async function publishTable({ source: spec, job, rules }: RecopyOptions, table: TableRef): Promise<void> {
  await using source = await Session.open(spec, { role: 'publish', job, side: 'the source' });
  await source.query('set default_transaction_read_only = off');
  const names = publicationNamesOf(job);
  const { published, identified, exists } = await source.one<{ published: boolean; identified: boolean; exists: boolean }>(publicationsOf(table, [names.all, names.inserts]));
  // A publication of somebody's own choosing decides by itself what is in it.
  if (published || !exists) return;
  const where = rules.rowCondition(table);
  const [filtered] = where === undefined ? [] : await publishableFilters(source, job, [{ ...table, where, excludeColumns: rules.excludedColumns(table) }]);
  await source.query(`alter publication ${quoteIdent(identified ? names.all : names.inserts)} add table ${qualifiedName(table.schema, table.name)}${filtered?.where === undefined ? '' : ` where ${filtered.where}`}`);
}

/** Takes a table out of the job's publications. */
export async function unpublishTable(spec: ConnectionSpec, job: string, table: TableRef): Promise<void> {
  await using source = await Session.open(spec, { role: 'publish', job, side: 'the source' });
  await source.query('set default_transaction_read_only = off');
  const names = publicationNamesOf(job);
  for (const name of [names.all, names.inserts]) {
    try {
      await source.query(`alter publication ${quoteIdent(name)} drop table ${qualifiedName(table.schema, table.name)}`);
    } catch (error) {
      // Not in this publication, no such publication, or no such table any more.
      const state = sqlstateOf(error);
      if (state === sqlstate.objectNotInPrerequisiteState) {
        throw new PgweaveError('publication-decides', `publication ${name} publishes ${displayName(table.schema, table.name)} by a rule for all tables or a schema: one table cannot leave it`, { hint: 'Publish a list of tables instead, or follow with a publication of your own.', retry: 'never', cause: error });
      }
      if (state !== sqlstate.undefinedObject && state !== sqlstate.undefinedTable) throw error;
    }
  }
}
