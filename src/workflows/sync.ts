import { existingTables, type SubscriptionRow, type SyncState, type TargetTableRow } from '../catalog/subscriptions.ts';
import { resolveSelection, selectableTables } from '../catalog/selection.ts';
import { sleep } from '../core/abort.ts';
import { errorMessage, PgweaveError } from '../core/errors.ts';
import type { Emit } from '../core/events.ts';
import { failpoint } from '../core/failpoints.ts';
import { checkJobName, jobObjectName } from '../core/job-folder.ts';
import { noRules, type SelectionRules } from '../core/selection/rules.ts';
import type { SelectionScope } from '../core/selection/select.ts';
import { tableKey, type TableRef } from '../core/tables.ts';
import { describeConnection, type ConnectionSpec } from '../pg/conninfo.ts';
import { displayName, qualifiedName, quoteIdent } from '../pg/identifiers.ts';
import { formatLsn, maxLsn, parseLsn, zeroLsn, type Lsn } from '../pg/lsn.ts';
import { Session } from '../pg/session.ts';
import { sqlstate, sqlstateOf } from '../pg/sqlstate.ts';
import { ensurePublications, publicationNamesOf, type JobPublications, type PublishedTable } from './publications.ts';
import { binaryFits } from './sync/binary.ts';
import { subscriptionConnection, type SubscriptionConnection } from './sync/connection.ts';
import { checkPublished, publishedRelations } from './sync/published-relations.ts';
import { publishedTables, type PublishedTables } from './sync/published-tables.ts';
import { advanceSlot, checkSlot, copiedTables, readProgress, readSlot, startPoint } from './sync/start-point.ts';
import { alignSubscription, checkOurs, createSubscription, dropSubscription, enableSubscription, readSubscribedTables, readSubscription, refreshSubscription, type SubscriptionSettings } from './sync/subscription.ts';

/**
 * `auto`: takes over from a copy that pgweave made for a stream; without one PostgreSQL copies. `defer`: everything is made, no table is subscribed and nothing copied until `now`.
 * `none`: only what changes from now on.
 */
export type SyncCopy = 'auto' | 'defer' | 'now' | 'none';

export interface SyncOptions {
  readonly source: ConnectionSpec;
  readonly target: ConnectionSpec;
  readonly job?: string;
  readonly rules?: SelectionRules | undefined;
  readonly scope?: SelectionScope | undefined;
  readonly copy?: SyncCopy;
  /** Tables that the target lacks are left out rather than refused. */
  readonly ignoreMissing?: boolean;
  /** Tables without a replica identity that are published for inserts alone. */
  readonly insertOnly?: (table: TableRef) => boolean;
  readonly sourceForTarget?: ConnectionSpec | undefined;
  readonly passfile?: string | undefined;
  /** Default: parallel, which older targets take as on. */
  readonly streaming?: SubscriptionSettings['streaming'];
  /** Default: where every type allows it. */
  readonly binary?: boolean | undefined;
  readonly twoPhase?: boolean;
  readonly origin?: SubscriptionSettings['origin'];
  /** Waits until every table streams. */
  readonly wait?: boolean;
  /**
   * Called where tables were copied at several moments: must run pgweave's own stream of this job until everything before `upTo` is applied, stop it, and return how far it came.
   */
  readonly bridge?: (upTo: Lsn) => Promise<Lsn>;
  readonly signal?: AbortSignal | undefined;
  readonly onEvent?: Emit | undefined;
}

export interface SyncResult {
  readonly format: 1;
  readonly job: string;
  /** What was done: `handed-over`: goes on exactly where our copy ended; `copying`: PostgreSQL copies now; `deferred`; `from-now`; `reconciled`: it was there. */
  readonly outcome: 'handed-over' | 'copying' | 'deferred' | 'from-now' | 'reconciled';
  readonly subscription: string;
  readonly slot: string;
  readonly publications: readonly string[];
  /** Position from which changes are applied, where this run decided it. */
  readonly startLsn: string | null;
  readonly settings: SubscriptionSettings;
  readonly tables: readonly (TableRef & { readonly state: SyncState })[];
  /** Left out since the target has no such table. */
  readonly missing: readonly TableRef[];
  readonly insertsOnly: readonly TableRef[];
  readonly unlogged: readonly TableRef[];
  /** --copy-now: rows were there already, so nothing was copied. */
  readonly notEmpty: readonly TableRef[];
  /** The target's catalog holds the source's password. */
  readonly storesPassword: boolean;
}

/** Follows the source with PostgreSQL's own logical replication: afterwards no pgweave process is needed. Can be run again at any time: what is there is brought to what is asked for. */
export async function sync(options: SyncOptions): Promise<SyncResult> {
  const job = checkJobName(options.job ?? 'default');
  const connection = subscriptionConnection(options.source, options.target, options);
  await using source = await Session.open(options.source, { role: 'sync', job, side: 'the source', signal: options.signal });
  await using target = await Session.open(options.target, { role: 'sync', job, side: 'the target', signal: options.signal });
  const run = new SyncRun(options, job, connection, source, target);
  return await run.run();
}

/** What `clone --sync` calls once its copy is whole: {@link sync} that refuses to copy anything. */
export async function handOverToSubscription(options: Omit<SyncOptions, 'copy'>): Promise<SyncResult> {
  const result = await sync(options);
  if (result.outcome === 'handed-over' || result.outcome === 'reconciled') return result;
  throw new PgweaveError('nothing-to-hand-over', 'the target does not hold a copy of this job that a subscription could go on from');
}

export interface PublishSelectionOptions {
  readonly job: string;
  readonly rules?: SelectionRules | undefined;
  readonly scope?: SelectionScope | undefined;
  readonly insertOnly?: (table: TableRef) => boolean;
}

/** Publishes a selection for a native subscription, with row filters and column lists. `clone --sync` calls it before it makes its slot: changes are sent as they were published when they happened. */
export async function publishSelection(source: Session, options: PublishSelectionOptions): Promise<JobPublications> {
  const { tables } = await plannedTables(source, options);
  return ensurePublications(source, { job: options.job, tables, viaRoot: true });
}

/** Throws what {@link publishSelection} would throw; leaves nothing on the source. */
export async function checkPublishable(source: Session, options: PublishSelectionOptions): Promise<void> {
  const { tables } = await plannedTables(source, options);
  await ensurePublications(source, { job: options.job, tables, viaRoot: true, takeBack: true });
}

async function plannedTables(source: Session, options: Pick<SyncOptions, 'rules' | 'scope' | 'insertOnly'>): Promise<PublishedTables> {
  const { selection } = await resolveSelection(source, options.rules ?? noRules, options.scope);
  return publishedTables(source, { selection, catalog: await selectableTables(source), ...(options.insertOnly ? { insertOnly: options.insertOnly } : {}) });
}

class SyncRun {
  readonly #options: SyncOptions;
  readonly #job: string;
  readonly #connection: SubscriptionConnection;
  readonly #source: Session;
  readonly #target: Session;
  readonly #name: string;
  #missing: readonly TableRef[] = [];
  #notEmpty: TableRef[] = [];
  #startLsn: string | null = null;

  constructor(options: SyncOptions, job: string, connection: SubscriptionConnection, source: Session, target: Session) {
    this.#options = options;
    this.#job = job;
    this.#connection = connection;
    this.#source = source;
    this.#target = target;
    this.#name = jobObjectName(job);
  }

  async run(): Promise<SyncResult> {
    this.#checkVersions();
    const planned = await plannedTables(this.#source, this.#options);
    const tables = await this.#onTarget(planned.tables);
    const settings = await this.#settings(tables);
    const there = await readSubscription(this.#target, this.#name);
    checkOurs(there, this.#job);
    this.#emit({ type: 'phase', phase: 'preparing', detail: 'native subscription' });
    for (const table of planned.insertsOnly) this.#warn('inserts-only', `${displayName(table.schema, table.name)} has no replica identity: only its inserts are replicated`);
    if (planned.unlogged.length > 0) this.#warn('unlogged-left-out', `${planned.unlogged.length} unlogged tables are not in the WAL and do not follow: ${planned.unlogged.map((t) => displayName(t.schema, t.name)).join(', ')}`);
    if (this.#connection.storesPassword) this.#warn('password-stored', `the password of role "${(this.#options.sourceForTarget ?? this.#options.source).user}" on the source is stored in the target's catalog (pg_subscription), where superusers can read it`, 'Use a role that can do nothing but replicate, or --subscription-passfile FILE with a password file on the target\'s machine.');

    let outcome: SyncResult['outcome'];
    if (there) outcome = await this.#reconcile(there, tables, settings);
    else {
      const copied = this.#options.copy === undefined || this.#options.copy === 'auto' ? await copiedTables(this.#target, this.#job) : [];
      outcome = copied.length > 0 ? await this.#takeOver(tables, settings) : await this.#begin(tables, settings);
    }
    if (this.#options.wait) await this.#untilReady();
    const now = await readSubscribedTables(this.#target, this.#name);
    this.#emit({ type: 'phase', phase: outcome === 'deferred' ? 'stopped' : now.every((t) => t.state === 'r') ? 'streaming' : 'copying' });
    const names = publicationNamesOf(this.#job);
    return {
      format: 1, job: this.#job, outcome, subscription: this.#name, slot: this.#name, publications: planned.insertsOnly.length > 0 ? [names.all, names.inserts] : [names.all], startLsn: this.#startLsn, settings,
      tables: now.map((t) => ({ schema: t.schema, name: t.name, state: t.state })), missing: this.#missing, insertsOnly: planned.insertsOnly, unlogged: planned.unlogged, notEmpty: this.#notEmpty, storesPassword: this.#connection.storesPassword,
    };
  }

  /** Goes on where pgweave's own copy, or its own stream, ended. */
  async #takeOver(tables: readonly PublishedTable[], settings: SubscriptionSettings): Promise<SyncResult['outcome']> {
    const slot = await readSlot(this.#source, this.#name);
    if (!slot) throw new PgweaveError('slot-missing', `the copy of job "${this.#job}" has no slot ${this.#name} on the source: what was changed since is not known`, { hint: 'Begin anew with pgweave clone --sync --no-resume; or follow from now on only: pgweave sync --no-copy' });
    checkSlot(slot, this.#name, this.#source.spec.database);
    // Changes are sent as they were published when they happened: too late to publish otherwise now.
    await checkPublished(this.#source, this.#job, tables);
    let bridged: Lsn | undefined;
    for (;;) {
      const records = await copiedTables(this.#target, this.#job);
      const confirmed = parseLsn((await readSlot(this.#source, this.#name))?.confirmed_flush_lsn ?? '0/0');
      const progress = await readProgress(this.#target, this.#job);
      const start = startPoint(records, bridged === undefined ? progress : maxLsn(progress ?? zeroLsn, bridged), confirmed);
      if (start.kind === 'at') {
        this.#startLsn = formatLsn(start.lsn);
        await advanceSlot(this.#source, this.#name, start.lsn);
        this.#emit({ type: 'log', level: 'info', message: `taking over ${tables.length} tables at ${this.#startLsn}` });
        break;
      }
      if (!this.#options.bridge) {
        throw new PgweaveError('copied-at-several-moments', 'the tables were copied at several moments, so no position of the slot fits all of them', { hint: `Bring them to one with pgweave's own stream, then hand over: pgweave follow --job ${this.#job} --until-caught-up, then pgweave sync --job ${this.#job}` });
      }
      this.#emit({ type: 'log', level: 'info', message: `bringing all tables to one position, ${formatLsn(start.upTo)}, before the subscription takes over` });
      bridged = await this.#options.bridge(start.upTo);
    }
    await failpoint('sync.before-subscription');
    await this.#create(publicationNamesIn(await publishedRelations(this.#source, this.#job)), settings, false);
    return 'handed-over';
  }

  /** Makes publication, slot and subscription, in this order: a run that ends between them is taken up by the next. */
  async #begin(tables: readonly PublishedTable[], settings: SubscriptionSettings): Promise<SyncResult['outcome']> {
    const copy = this.#options.copy ?? 'auto';
    const copies = copy === 'auto' || copy === 'now';
    if (copies) await this.#refuseRows(tables);
    const publications = await ensurePublications(this.#source, { job: this.#job, tables: copy === 'defer' ? [] : tables, viaRoot: true });
    await failpoint('sync.after-publication');
    const slot = await readSlot(this.#source, this.#name);
    if (slot) checkSlot(slot, this.#name, this.#source.spec.database);
    else await this.#createSlot();
    await failpoint('sync.before-subscription');
    try {
      await this.#create(publications.names, settings, copies);
    } catch (error) {
      if (!slot) await this.#dropUnusedSlot();
      throw error;
    }
    return copy === 'defer' ? 'deferred' : copies ? 'copying' : 'from-now';
  }

  async #create(publications: readonly string[], settings: SubscriptionSettings, copyData: boolean): Promise<void> {
    await createSubscription(this.#target, { job: this.#job, name: this.#name, conninfo: this.#connection.conninfo, slot: this.#name, publications, copyData, settings, source: this.#options.sourceForTarget ?? this.#options.source });
    // A target that took another server for the source found no publication there, or another one's tables.
    const expected = new Set((await publishedRelations(this.#source, this.#job)).map(tableKey));
    const got = await readSubscribedTables(this.#target, this.#name);
    if (got.length !== expected.size || got.some((t) => !expected.has(tableKey(t)))) {
      await dropSubscription(this.#target, this.#name);
      throw new PgweaveError('target-reached-another-server', `the target found ${got.length} of ${expected.size} published tables: the address ${describeConnection(this.#options.sourceForTarget ?? this.#options.source)} leads it to another server`, { hint: 'Give the address at which the target reaches the source: --source-for-target postgresql://…' });
    }
    await failpoint('sync.before-enable');
    await enableSubscription(this.#target, this.#name);
  }

  async #createSlot(): Promise<void> {
    try {
      const { lsn } = await this.#source.one<{ lsn: string }>(`select lsn::text as lsn from pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput')`, [this.#name]);
      this.#startLsn = lsn;
    } catch (error) {
      const state = sqlstateOf(error);
      if (state === '53400') throw new PgweaveError('no-slot-free', 'the source has no replication slot free', { hint: 'Raise max_replication_slots (needs a restart), or drop slots that nobody uses.', cause: error });
      if (state === sqlstate.objectNotInPrerequisiteState) throw new PgweaveError('not-logical', `the source cannot make a logical slot: ${(error as Error).message}`, { hint: 'Set wal_level = logical and restart the source; pgweave validate --sync says how for your provider.', cause: error });
      if (state === sqlstate.insufficientPrivilege) throw new PgweaveError('no-replication-right', `role "${this.#source.spec.user}" may not make a replication slot on the source`, { hint: `ALTER ROLE ${quoteIdent(this.#source.spec.user)} REPLICATION; pgweave validate --sync says how for your provider.`, cause: error });
      throw error;
    }
  }

  /** The slot of a subscription that could not be made: nobody would read it, and it would keep WAL on the source until the disk is full. */
  async #dropUnusedSlot(): Promise<void> {
    try {
      if (!(await readSubscription(this.#target, this.#name))) await this.#source.query('select pg_catalog.pg_drop_replication_slot($1)', [this.#name]);
    } catch (error) {
      this.#warn('slot-left', `slot ${this.#name} stays on the source and keeps WAL there: ${errorMessage(error)}`, `The same command uses it; pgweave cleanup --job ${this.#job} removes it.`);
    }
  }

  /** The subscription is there: brings publication, tables and settings to what is asked for. */
  async #reconcile(there: SubscriptionRow, tables: readonly PublishedTable[], settings: SubscriptionSettings): Promise<SyncResult['outcome']> {
    const slot = await readSlot(this.#source, this.#name);
    if (!slot) throw new PgweaveError('slot-missing', `subscription ${this.#name} has lost its slot on the source`, { hint: 'Changes since then are not known. Remove what is left with pgweave cleanup, then begin anew.' });
    checkSlot({ ...slot, active_pid: null }, this.#name, this.#source.spec.database);
    if (settings.twoPhase && there.two_phase === 'd') {
      throw new PgweaveError('two-phase-is-fixed', `subscription ${this.#name} was made without --two-phase, and so was its slot`, { hint: `Leave --two-phase out, or begin anew with it: pgweave cleanup --job ${this.#job}, then pgweave sync --two-phase`, exitCode: 2 });
    }
    const copy = this.#options.copy ?? 'auto';
    const subscribed = await readSubscribedTables(this.#target, this.#name);
    const have = new Map(subscribed.map((t) => [tableKey(t), t]));
    if (copy === 'defer') {
      if (subscribed.length > 0) throw new PgweaveError('already-subscribed', `${subscribed.length} tables are subscribed already: their copy cannot be deferred any more`, { hint: 'pgweave status shows where they stand.', exitCode: 2 });
      return 'deferred';
    }
    const added = tables.filter((t) => !have.has(tableKey(t)));
    if (copy !== 'none') await this.#refuseRows(added);
    const again = copy === 'now' ? await this.#uncopied(tables.filter((t) => have.get(tableKey(t))?.state === 'r')) : [];
    if (again.length > 0) {
      // A table that is subscribed is never copied by REFRESH, whatever copy_data says: it must leave first.
      const left = tables.filter((t) => !again.includes(t) && have.has(tableKey(t)));
      await ensurePublications(this.#source, { job: this.#job, tables: left, viaRoot: true });
      await enableSubscription(this.#target, this.#name);
      await refreshSubscription(this.#target, this.#name, false, this.#options.source);
      await failpoint('sync.tables-removed');
    }
    const publications = await ensurePublications(this.#source, { job: this.#job, tables, viaRoot: true });
    await failpoint('sync.after-publication');
    const subscription = (await readSubscription(this.#target, this.#name))!;
    await alignSubscription(this.#target, subscription, { publications: publications.names, settings, conninfo: this.#connection.conninfo, source: this.#options.source });
    if (!subscription.enabled) await enableSubscription(this.#target, this.#name);
    await failpoint('sync.before-refresh');
    const copies = copy !== 'none' && added.length + again.length > 0;
    await refreshSubscription(this.#target, this.#name, copies, this.#options.source);
    return copies ? 'copying' : 'reconciled';
  }

  /** Of tables that stream: those that hold no row here while the source has some. Those that hold rows are left alone and told. */
  async #uncopied(tables: readonly PublishedTable[]): Promise<PublishedTable[]> {
    const out: PublishedTable[] = [];
    for (const table of tables) {
      if (await hasRows(this.#target, table)) this.#notEmpty.push({ schema: table.schema, name: table.name });
      else if (await hasRows(this.#source, table)) out.push(table);
    }
    return out;
  }

  async #refuseRows(tables: readonly PublishedTable[]): Promise<void> {
    const full: string[] = [];
    for (const table of tables) if (await hasRows(this.#target, table)) full.push(displayName(table.schema, table.name));
    if (full.length === 0) return;
    throw new PgweaveError('target-not-empty', `${full.length} tables of the target hold rows already, and copying would bring them twice: ${full.slice(0, 10).join(', ')}${full.length > 10 ? ', …' : ''}`, {
      hint: 'Empty them (TRUNCATE), leave them out with --exclude-tables, or follow from now on only with --no-copy. To copy with pgweave and hand over exactly: pgweave clone --sync', exitCode: 2,
    });
  }

  async #onTarget(tables: readonly PublishedTable[]): Promise<readonly PublishedTable[]> {
    const rows = await this.#target.query<TargetTableRow>(existingTables(tables.map((t) => t.schema), tables.map((t) => t.name)));
    const there = new Set(rows.filter((r) => r.exists).map((r) => tableKey(r)));
    const missing = tables.filter((t) => !there.has(tableKey(t)));
    if (missing.length > 0 && !this.#options.ignoreMissing) {
      throw new PgweaveError('target-table-missing', `the target lacks ${missing.length} of ${tables.length} tables: ${missing.slice(0, 10).map((t) => displayName(t.schema, t.name)).join(', ')}${missing.length > 10 ? ', …' : ''}`, { hint: 'pgweave clone --sync makes the schema and copies; --ignore-missing leaves these tables out.', exitCode: 2 });
    }
    this.#missing = missing.map((t) => ({ schema: t.schema, name: t.name }));
    if (missing.length > 0) this.#warn('missing-left-out', `left out, since the target lacks them: ${this.#missing.map((t) => displayName(t.schema, t.name)).join(', ')}`);
    return tables.filter((t) => there.has(tableKey(t)));
  }

  async #settings(tables: readonly PublishedTable[]): Promise<SubscriptionSettings> {
    const { streaming = 'parallel', binary, twoPhase = false, origin = 'any' } = this.#options;
    return { streaming, binary: binary ?? (await binaryFits(this.#source, this.#target, tables)), twoPhase, origin };
  }

  #checkVersions(): void {
    const need = (what: string, version: number, sides: readonly Session[]) => {
      const old = sides.find((s) => s.serverVersion < version * 10_000);
      if (old) throw new PgweaveError('not-supported', `${what} needs PostgreSQL ${version} on ${sides.length > 1 ? 'both sides' : 'the target'}; ${old === this.#source ? 'the source' : 'the target'} is ${old.serverVersionText.split(' ')[0]}`, { hint: `Leave ${what} out${what.startsWith('--origin') ? ', or follow with pgweave itself, which filters origins on every version' : ''}.`, exitCode: 2 });
    };
    if (this.#options.twoPhase) need('--two-phase', 15, [this.#source, this.#target]);
    if (this.#options.origin === 'none') need('--origin none', 16, [this.#source, this.#target]);
  }

  /** Polls until every table streams. Interrupting it changes nothing: the servers go on by themselves. */
  async #untilReady(): Promise<void> {
    const told = new Map<string, SyncState>();
    for (;;) {
      const tables = await readSubscribedTables(this.#target, this.#name);
      for (const t of tables) {
        if (told.get(tableKey(t)) === t.state) continue;
        told.set(tableKey(t), t.state);
        this.#emit({ type: 'table-state', table: { schema: t.schema, name: t.name }, state: t.state === 'r' ? { name: 'streaming' } : t.state === 'i' ? { name: 'pending' } : t.state === 'd' ? { name: 'copying' } : { name: 'copied', lsn: t.lsn } });
      }
      if (tables.every((t) => t.state === 'r')) return;
      await sleep(200, this.#options.signal);
    }
  }

  #emit(event: Parameters<Emit>[0]): void {
    this.#options.onEvent?.(event);
  }

  #warn(code: string, message: string, hint?: string): void {
    this.#emit({ type: 'warning', code, message, ...(hint === undefined ? {} : { hint }) });
  }
}

function publicationNamesIn(rows: readonly { readonly publication: string }[]): string[] {
  return [...new Set(rows.map((r) => r.publication))].sort();
}

async function hasRows(session: Session, table: TableRef): Promise<boolean> {
  const { some } = await session.one<{ some: boolean }>(`select exists (select 1 from ${qualifiedName(table.schema, table.name)}) as some`);
  return some;
}
