import { usableTablespaces } from '../../catalog/special-objects.ts';
import { planCopy, type TablePlan, type TableSelection } from '../../copy/table-plan.ts';
import type { SourceSnapshot } from '../../copy/snapshot.ts';
import { failpoint } from '../../core/failpoints.ts';
import { tableKey, type TableRef } from '../../core/tables.ts';
import { displayName } from '../../pg/identifiers.ts';
import { readColumnsOut } from '../../schema/columns-out.ts';
import { dumpSchema } from '../../schema/dump.ts';
import type { ColumnsOut, IndexStatement, SchemaPlan } from '../../schema/plan.ts';
import { refreshOrder } from '../../schema/refresh-order.ts';
import { planSchema } from '../../schema/statements.ts';
import type { End } from './ends.ts';
import type { BegunJob } from './job.ts';
import { defaultSplitBytes, type CloneOptions } from './options.ts';
import { indexesByTable } from './restore-keys.ts';

/** The schema that is cloned, and which rows go into it. */
export interface ClonedSchema {
  readonly plan: SchemaPlan;
  readonly indexes: ReadonlyMap<string, IndexStatement[]>;
  readonly selection: TableSelection;
  /** Statements of the plan. */
  readonly objects: number;
  /** What to gather statistics of, largest first: tables that hold rows, and roots of partition trees. */
  readonly analyze: readonly TableRef[];
  /** Tables to copy as a snapshot shows them: those of the plan alone. */
  tables(snapshot: SourceSnapshot): Promise<TablePlan[]>;
}

/** Settings of {@link planCopy} that a job keeps. */
export function copyPlanOptions(options: CloneOptions, source: End, target: End, selection: TableSelection): Parameters<typeof planCopy>[1] {
  return { selection, splitBytes: options.splitBytes ?? defaultSplitBytes, format: options.format ?? 'auto', sameEncoding: source.identity.encoding === 'UTF8' && target.identity.encoding === 'UTF8' };
}

/**
 * The plan of the schema. Its text is read once, in the first snapshot, and kept on the target: a rerun restores what the first run read, whatever became of the source's schema
 * since, and the ledger's lines fit [hard case 43].
 */
export async function planOf(source: End, target: End, job: BegunJob, snapshot: SourceSnapshot, options: CloneOptions & { readonly job: string }): Promise<ClonedSchema> {
  const { emit, selection } = { emit: options.onEvent, selection: job.selection };
  let text = job.ledger.stepNote('dump');
  if (text === undefined || text === null) {
    const dump = await dumpSchema({ source: source.session, snapshot: snapshot.id, dumper: options.dumper ?? 'auto', job: options.job, signal: options.signal });
    emit?.({ type: 'log', level: 'info', message: `schema read by ${dump.dumper}` });
    text = dump.text;
    await failpoint('clone.dumped');
    if (job.excluded.size > 0) await job.ledger.markStep(target.session, 'columns-out', JSON.stringify(await readColumnsOut(snapshot.session, job.excluded)));
    await job.ledger.markStep(target.session, 'dump', text);
  }
  const columnsOut = job.ledger.stepNote('columns-out');
  const plan = await planSchema(text, { includeTable: (table) => selection.choose(table) !== 'skip', tablespaces: await tablespacesOf(target, options), columnsOut: columnsOut ? (JSON.parse(columnsOut) as ColumnsOut) : undefined, refresh: await refreshOrder(snapshot.session), owners: options.owners ?? true, privileges: options.privileges ?? true });
  if (plan.lackingTablespaces.length > 0 && options.tablespaces !== false && !job.resumed) {
    emit?.({ type: 'warning', code: 'tablespaces', message: `the target has no tablespace ${plan.lackingTablespaces.join(', ')} that its role may use: what lies there on the source goes to the default one`, hint: 'Where that matters, make it first (CREATE TABLESPACE; GRANT CREATE ON TABLESPACE) and begin anew with --no-resume --drop-existing.' });
  }
  const known = new Set(plan.relations.map(tableKey));
  const planOptions = copyPlanOptions(options, source, target, selection);
  let warned = false;
  const read = new WeakMap<SourceSnapshot, Promise<TablePlan[]>>();
  const tables = (in_: SourceSnapshot) => {
    const known = read.get(in_) ?? readTables(in_);
    read.set(in_, known);
    return known;
  };
  const readTables = async (in_: SourceSnapshot) => {
    const all = await planCopy(in_.session, planOptions);
    // An extension's tables come with the extension, not with the dump.
    const fits = (t: TablePlan) => t.extensionConfig || known.has(tableKey(t));
    const others = all.filter((t) => !fits(t));
    if (others.length > 0 && !warned) {
      warned = true;
      emit?.({ type: 'warning', code: 'table-too-new', message: `${others.slice(0, 5).map((t) => displayName(t.schema, t.name)).join(', ')}${others.length > 5 ? ` and ${others.length - 5} more tables` : ''} came into being after the schema was read and ${others.length === 1 ? 'is' : 'are'} left out`, hint: 'Add them with: pgweave table NAME --add, once the job streams; or begin anew with --no-resume --drop-existing.' });
    }
    return all.filter(fits);
  };
  const roots = plan.relations.filter((r) => r.kind === 'partitioned table');
  return {
    plan, indexes: indexesByTable(plan), selection, tables, objects: plan.preData.length + plan.indexes.length + plan.attach.length + plan.foreignKeys.length + plan.postData.length,
    analyze: [...[...(await tables(snapshot))].sort((a, b) => b.bytes - a.bytes), ...roots].map(({ schema, name }) => ({ schema, name })),
  };
}

/** Tablespaces of the target that a clone may use. */
export async function tablespacesOf(target: End, options: Pick<CloneOptions, 'tablespaces'>): Promise<ReadonlySet<string>> {
  if (options.tablespaces === false) return new Set();
  return new Set((await target.session.query<{ name: string }>(usableTablespaces())).map((row) => row.name));
}

/** Tables whose changes a stream would carry: ordinary ones, roots of partition trees where all leaves belong to the job, else the leaves that do. */
export async function sourceTables(source: End, job: Pick<BegunJob, 'selection'>, options: CloneOptions): Promise<TableRef[]> {
  const all = (await planCopy(source.session, { splitBytes: 0, format: options.format ?? 'auto', sameEncoding: false })).filter((t) => !t.extensionConfig);
  const chosen = (table: TableRef) => job.selection.choose(table) === 'copy';
  // Published by its root, a leaf that is left out would send its changes too.
  const broken = new Set(all.flatMap((t) => (t.root && (!chosen(t) || !chosen(t.root)) ? [tableKey(t.root)] : [])));
  const out = new Map<string, TableRef>();
  for (const { root, schema, name } of all.filter(chosen)) {
    const published = root && !broken.has(tableKey(root)) ? root : { schema, name };
    out.set(tableKey(published), published);
  }
  return [...out.values()];
}
