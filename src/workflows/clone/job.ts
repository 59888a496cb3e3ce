import { columnDependentsOf } from '../../catalog/column-dependents.ts';
import { installedVersion } from '../../catalog/pgweave-schema.ts';
import { relationNames, type RelationNameRow } from '../../catalog/target-contents.ts';
import { dropPublications } from '../publications.ts';
import { checkPublishable } from '../sync.ts';
import { ensureChangesSchema, forgetJob } from '../../changes/target-schema.ts';
import { CopyLedger, forgetCopy } from '../../copy/copy-ledger.ts';
import { keepSelection } from '../../copy/kept-selection.ts';
import { tableSelection, type TableSelection } from '../../copy/table-plan.ts';
import { resolveSelection } from '../../catalog/selection.ts';
import { PgweaveError, usageError } from '../../core/errors.ts';
import { jobObjectName } from '../../core/job-folder.ts';
import { noRules } from '../../core/selection/rules.ts';
import { excludedColumns, type Selection } from '../../core/selection/select.ts';
import { tableKey } from '../../core/tables.ts';
import { displayName } from '../../pg/identifiers.ts';
import { Ledger } from '../../schema/ledger.ts';
import { refuseClashes, type Rename } from '../../schema/renames.ts';
import type { End } from './ends.ts';
import { refuseExisting } from './existing.ts';
import { checkStreamed } from './filtered-stream.ts';
import type { CloneOptions } from './options.ts';
import { sourceTables } from './schema.ts';

/** A job whose beginning is recorded on the target. */
export interface BegunJob {
  readonly ledger: CopyLedger;
  readonly schemaLedger: Ledger;
  /** With the source's names: a clone gives tables those of `renames` at its end. */
  readonly selection: TableSelection;
  readonly renames: readonly Rename[];
  /** Columns that the target does not get, by table key. */
  readonly excluded: ReadonlyMap<string, readonly string[]>;
  /** An earlier run had begun it. */
  readonly resumed: boolean;
  /** An earlier run had done all of it. */
  readonly finished: boolean;
  /** Refuses relations that stand in the way. */
  refuse(existing: readonly RelationNameRow[]): void;
}

type Options = CloneOptions & { readonly job: string };

/** Reads what earlier runs of the job did on the target, or begins it: refuses a target with tables of the same name, and forgets earlier runs where it is asked to. */
export async function beginJob(options: Options, source: End, target: End): Promise<BegunJob> {
  const { job, mode = 'clone', resume = true } = options;
  const { resolved, ...chosen } = await selectionOf(options, source);
  const known = await knownMode(target, job);
  if (known !== undefined && resume && (known === 'clone') !== (mode === 'clone')) {
    throw new PgweaveError('mode-changed', mode === 'clone' ? `job "${job}" was begun to be followed by a stream of changes` : `job "${job}" was begun as a plain copy: no slot was made before it, so no stream fits to it`, {
      hint: mode === 'clone' ? `Give --${known} again, or begin anew with --no-resume --drop-existing.` : 'Begin anew with --no-resume --drop-existing, or choose another --job and target.', exitCode: 2, retry: 'never',
    });
  }
  const resumed = known !== undefined && resume;
  if (!resumed) {
    if (mode === 'sync') await checkPublishable(source.session, options);
    if (mode === 'follow') await checkStreamed(source.session, options, await sourceTables(source, chosen, options));
    await columnDependentsOf(source.session, chosen.excluded);
    if (!options.dropExisting) refuseExisting(await inTheWay(source, target, chosen));
    await refuseClashes(source.session, target.session, chosen.renames, (table) => chosen.selection.choose(table) !== 'skip');
  }
  const ledger = await CopyLedger.open(target.session, job);
  const schemaLedger = await Ledger.open(target.session, job);
  await ensureChangesSchema(target.session);
  if (!resumed) await forgetEarlier(options, source, target, schemaLedger);
  const fresh = resumed ? ledger : await CopyLedger.open(target.session, job);
  if (!resumed) await keepSelection(target.session, fresh, resolved);
  await fresh.markStep(target.session, 'begun', mode);
  return { ledger: fresh, schemaLedger, ...chosen, resumed, finished: resumed && fresh.hasStep('finished'), refuse: refuseExisting };
}

/** What the rules mean on this source. */
export async function selectionOf(options: Options, source: End): Promise<Pick<BegunJob, 'selection' | 'renames' | 'excluded'> & { readonly resolved: Selection }> {
  const { rules = noRules, scope = { database: source.identity.database } } = options;
  const { selection } = await resolveSelection(source.session, rules, scope);
  const made = [...selection.values()].filter((s) => s.mode !== 'skip');
  const renames = made.filter((s) => tableKey(s.table) !== tableKey(s.mapTo)).map((s) => ({ from: s.table, to: s.mapTo }));
  if (renames.length > 0 && options.mode === 'sync') throw usageError('a native subscription finds tables by their names on the source', 'Leave --map out, or follow with pgweave itself: pgweave clone --follow.');
  return { resolved: selection, selection: { ...tableSelection(selection), mapTo: (table) => table }, renames, excluded: excludedColumns(selection) };
}

/** The mode in which the job was begun on this target; undefined where it was not. Reads only. */
export async function knownMode(target: End, job: string): Promise<string | undefined> {
  if ((await installedVersion(target.session, 'copy')) === undefined) return undefined;
  const [row] = await target.session.query<{ note: string }>(`select note from pgweave.copy_step where job = $1 and step = 'begun'`, [job]);
  return row?.note;
}

/** Relations of the target with a name that the job would use: that of the source, which every table bears while it is copied, or that of --map. */
export async function inTheWay(source: End, target: End, { selection, renames }: Pick<BegunJob, 'selection' | 'renames'>): Promise<RelationNameRow[]> {
  const made = new Set((await source.session.query<RelationNameRow>(relationNames())).filter((row) => selection.choose(row) !== 'skip').map(tableKey));
  for (const { to } of renames) made.add(tableKey(to));
  return (await target.session.query<RelationNameRow>(relationNames())).filter((row) => made.has(tableKey(row)));
}

/** Removes what earlier runs of the job left on both sides, so that this one begins anew. */
async function forgetEarlier({ job }: Options, source: End, target: End, schemaLedger: Ledger): Promise<void> {
  const slot = jobObjectName(job);
  const [there] = await source.session.query<{ active_pid: number | null }>('select active_pid from pg_catalog.pg_replication_slots where slot_name = $1', [slot]);
  const began = await target.session.query(`select from pgweave.copy_step where job = $1 and step = 'slot-intent'`, [job]);
  // A slot that this target knows nothing of may be another's: startStream refuses it.
  if (there && began.length > 0) {
    if (there.active_pid !== null) throw new PgweaveError('slot-in-use', `slot ${slot} is in use on the source (pid ${there.active_pid})`, { hint: 'Another pgweave process of this job is running. Stop it first.' });
    await source.session.query('select pg_catalog.pg_drop_replication_slot($1)', [slot]);
    await dropPublications(source.session, job);
  }
  await target.session.query('select pg_catalog.pg_replication_origin_drop(roname) from pg_catalog.pg_replication_origin where roname = $1', [slot]).catch(() => undefined);
  await schemaLedger.forget(target.session);
  await forgetCopy(target.session, job);
  await forgetJob(target.session, job);
}

/** For messages: `public.orders, public.items, and 3 more`. */
export function someNames(rows: readonly RelationNameRow[]): string[] {
  return rows.map((row) => displayName(row.schema, row.name));
}
