import type { JobEvent, Phase, ServerFacts, SlotHealth, StepEvent, StreamProgress, TableState } from './events.ts';
import { logEntry } from './log-lines.ts';
import { redact } from './redact.ts';
import { tableKey, type TableRef } from './tables.ts';
import type { Topology } from './topology.ts';

/** One table as status, API, dashboard and terminal show it. */
export interface TableStatus extends TableRef {
  state: TableState;
  /** When the state's name changed last. */
  stateSince: string;
  /** Size in the source when planned, bytes. */
  bytes: number;
  bytesDone: number;
  /** Estimated rows, -1 where unknown. */
  rows: number;
  rowsDone: number;
  parts: number;
  partsDone: number;
  /** Parts that are being copied now. */
  partsRunning: number;
  /** Of the copy, over the last ten seconds; null where nothing is measured. */
  rowsPerSecond: number | null;
  indexes: number;
  indexesDone: number;
  /** Index being built now, with its phase and percent, from pg_stat_progress_create_index. */
  building: { index: string; phase: string; percent: number | null }[];
  inserts: number;
  updates: number;
  deletes: number;
}

export interface LogLine {
  /** Counts up by one a line from 1, so that a reader knows which lines are new to it. */
  n: number;
  at: string;
  level: 'debug' | 'info' | 'warn' | 'error';
  message: string;
}

/**
 * The state of a job at one moment: what the state file holds, `GET /api/v1/status` answers (without `tables`, which have their own route)
 * and the WebSocket sends. All sizes bytes, all durations milliseconds, all times ISO 8601 in UTC.
 */
export interface JobSnapshot {
  format: 1;
  job: string;
  command: string;
  pid: number;
  writtenAt: string;
  startedAt: string;
  phase: Phase;
  phaseSince: string;
  phaseDetail: string | null;
  /** The phases passed through, oldest first, the present one last; the newest hundred. */
  phases: { phase: Phase; since: string }[];
  source: ServerFacts | null;
  target: ServerFacts | null;
  schemaObjects: { done: number; total: number };
  totals: { tables: number; tablesCopied: number; tablesStreaming: number; tablesPaused: number; bytes: number; bytesDone: number; rowsDone: number; indexes: number; indexesDone: number };
  /** Over the last ten seconds; null where nothing was measured yet. */
  rates: { copyBytesPerSecond: number | null; copyRowsPerSecond: number | null; appliedRowsPerSecond: number | null; appliedTransactionsPerSecond: number | null };
  /** Time left of the copy, from the measured rate; null while unknown. */
  estimateMs: number | null;
  tables: TableStatus[];
  stream: Omit<StreamProgress, 'type'> | null;
  slot: Omit<SlotHealth, 'type'> | null;
  steps: Omit<StepEvent, 'type'>[];
  counters: { batches: number; conflicts: number; retries: number; reconnects: number };
  warnings: { at: string; code: string; message: string; hint: string | null }[];
  log: LogLine[];
  error: { code: string; message: string; hint: string | null } | null;
  /** Set once a switchover refused writes on the source; `until` is null while they are refused. */
  writesRefused?: { since: string; until: string | null };
  verified?: { at: string; tables: number; rows: number; differing: number; lsn: string | null };
  wayBack?: { open: boolean; slot: string; since: string };
  /** Where the job's own HTTP server listens, such as `http://127.0.0.1:7654`; absent without one. */
  api?: string;
  /** Fan-out and mesh only. */
  topology?: Topology;
}

export type JobSummary = Omit<JobSnapshot, 'tables' | 'log'>;

const logLinesKept = 500;
const phasesKept = 100;
const rateWindowMs = 10_000;
const sampleEveryMs = 200;

interface Sample { at: number; bytes: number; rows: number; appliedRows: number; transactions: number; copying: ReadonlyMap<TableStatus, number> }

/** Whether a table's rows are all in. One that is paused at a commit was streaming before; one paused without was still being copied. */
export function isCopied(state: TableState): boolean {
  return state.name === 'copied' || state.name === 'streaming' || (state.name === 'paused' && state.lsn !== null);
}

/** Folds events into the snapshot; texts lose their secrets on the way in, so that nothing drawn from a snapshot can hold one. One instance per job; `read()` is cheap enough to call every 500 ms with 5,000 tables. */
export class JobStatus {
  readonly #snapshot: JobSnapshot;
  readonly #tables = new Map<string, TableStatus>();
  readonly #recalled = new Map<string, TableStatus>();
  readonly #now: () => number;
  #samples: Sample[] = [];
  #logLines = 0;

  constructor(job: string, command: string, now: () => number = Date.now) {
    this.#now = now;
    const at = new Date(now()).toISOString();
    this.#snapshot = {
      format: 1, job, command, pid: process.pid, writtenAt: at, startedAt: at, phase: 'preparing', phaseSince: at, phaseDetail: null, phases: [{ phase: 'preparing', since: at }], source: null, target: null,
      schemaObjects: { done: 0, total: 0 },
      totals: { tables: 0, tablesCopied: 0, tablesStreaming: 0, tablesPaused: 0, bytes: 0, bytesDone: 0, rowsDone: 0, indexes: 0, indexesDone: 0 },
      rates: { copyBytesPerSecond: null, copyRowsPerSecond: null, appliedRowsPerSecond: null, appliedTransactionsPerSecond: null },
      estimateMs: null, tables: [], stream: null, slot: null, steps: [], counters: { batches: 0, conflicts: 0, retries: 0, reconnects: 0 }, warnings: [], log: [], error: null,
    };
  }

  /** The listener to hand to a workflow's `onEvent`. */
  readonly emit = (event: JobEvent): void => {
    const s = this.#snapshot;
    switch (event.type) {
      // The two that come most often need no time, and writing one is most of what they would cost.
      case 'copy-progress': {
        const t = this.#table(event.table);
        t.bytesDone += event.bytes;
        t.rowsDone += event.rows;
        return;
      }
      case 'table-changes': {
        const t = this.#table(event.table);
        t.inserts += event.inserts;
        t.updates += event.updates;
        t.deletes += event.deletes;
        return;
      }
      default:
    }
    const at = new Date(this.#now()).toISOString();
    this.#note(event, at);
    switch (event.type) {
      case 'phase':
        if (s.phase !== event.phase) {
          s.phaseSince = at;
          s.phases.push({ phase: event.phase, since: at });
          // Its steps are told anew; what an earlier one did is in the log and on the target.
          if (event.phase === 'switching-over') s.steps = [];
          if (s.phases.length > phasesKept) s.phases.shift();
        }
        s.phase = event.phase;
        s.phaseDetail = event.detail === undefined ? null : redact(event.detail);
        return;
      case 'servers':
        s.source = event.source;
        s.target = event.target;
        return;
      case 'schema-objects':
        s.schemaObjects = { done: event.done, total: event.total };
        return;
      case 'tables-planned':
        for (const t of event.tables) {
          const known = this.#tables.get(tableKey(t));
          const state: TableState = t.state ?? known?.state ?? { name: 'pending' };
          this.#tables.set(tableKey(t), {
            schema: t.schema, name: t.name, state, stateSince: known && known.state.name === state.name ? known.stateSince : at, bytes: t.bytes, bytesDone: known?.bytesDone ?? 0, rows: t.rows,
            rowsDone: known?.rowsDone ?? 0, parts: t.parts, partsDone: known?.partsDone ?? 0, partsRunning: 0, rowsPerSecond: null, indexes: t.indexes, indexesDone: known?.indexesDone ?? 0,
            building: [], inserts: known?.inserts ?? 0, updates: known?.updates ?? 0, deletes: known?.deletes ?? 0,
          });
        }
        return;
      case 'table-state':
        this.#setState(this.#table(event.table), event.state, at);
        return;
      case 'table-removed':
        this.#tables.delete(tableKey(event.table));
        return;
      case 'copy-part': {
        const t = this.#table(event.table);
        if (event.status === 'started') {
          t.partsRunning += 1;
          if (t.state.name === 'pending') this.#setState(t, { name: 'copying' }, at);
        } else {
          t.partsRunning = Math.max(0, t.partsRunning - 1);
          t.partsDone += 1;
        }
        return;
      }
      case 'indexes-planned':
        s.totals.indexes = event.total;
        return;
      case 'index': {
        const t = this.#table(event.table);
        t.building = t.building.filter((b) => b.index !== event.index);
        if (event.status === 'done') {
          t.indexesDone += 1;
          s.totals.indexesDone += 1;
        } else t.building.push({ index: event.index, phase: event.phase ?? 'building', percent: event.percent ?? null });
        return;
      }
      case 'stream-progress': {
        const { type: _, ...stream } = event;
        s.stream = stream;
        return;
      }
      case 'slot-health': {
        const { type: _, ...slot } = event;
        s.slot = slot;
        return;
      }
      case 'step': {
        const step = { name: event.name, status: event.status, detail: redact(event.detail), elapsedMs: event.elapsedMs };
        const known = s.steps.findIndex((x) => x.name === step.name);
        if (known >= 0) s.steps[known] = step;
        else s.steps.push(step);
        return;
      }
      case 'counter':
        s.counters[event.name] += event.by;
        return;
      case 'writes':
        if (event.refused) s.writesRefused = { since: at, until: null };
        else if (s.writesRefused?.until === null) s.writesRefused = { since: s.writesRefused.since, until: at };
        return;
      case 'verified':
        s.verified = { at, tables: event.tables, rows: event.rows, differing: event.differing, lsn: event.lsn };
        return;
      case 'way-back':
        s.wayBack = { open: event.open, slot: event.slot, since: at };
        return;
      case 'topology':
        s.topology = event.topology;
        return;
      case 'warning':
        s.warnings.push({ at, code: event.code, message: redact(event.message), hint: event.hint === undefined ? null : redact(event.hint) });
        if (s.warnings.length > 200) s.warnings.shift();
        return;
      case 'log':
        return;
      default:
        event satisfies never;
    }
  };

  /** What an earlier run of the job measured of its tables: shown for those that this run only follows, and so measures no more. */
  recall(tables: readonly TableStatus[]): void {
    for (const t of tables) this.#recalled.set(tableKey(t), t);
  }

  /** Tells readers of the snapshot where the job's HTTP server listens; null once it is closed. */
  setApi(url: string | null): void {
    if (url === null) delete this.#snapshot.api;
    else this.#snapshot.api = url;
  }

  /** Records how the job ended. */
  fail(error: { code: string; message: string; hint?: string | undefined }): void {
    this.#snapshot.error = { code: error.code, message: redact(error.message), hint: error.hint === undefined ? null : redact(error.hint) };
  }

  /** The state now. The object is reused: serialise it before the next event. */
  read(): JobSnapshot {
    const s = this.#snapshot;
    s.writtenAt = new Date(this.#now()).toISOString();
    const totals = { ...s.totals, tables: this.#tables.size, tablesCopied: 0, tablesStreaming: 0, tablesPaused: 0, bytes: 0, bytesDone: 0, rowsDone: 0 };
    for (const t of this.#tables.values()) {
      totals.bytes += t.bytes;
      totals.bytesDone += isCopied(t.state) ? t.bytes : Math.min(t.bytesDone, t.bytes);
      totals.rowsDone += t.rowsDone;
      if (t.state.name === 'copied') totals.tablesCopied += 1;
      if (t.state.name === 'streaming') totals.tablesStreaming += 1;
      if (t.state.name === 'paused') totals.tablesPaused += 1;
    }
    s.totals = totals;
    s.tables = [...this.#tables.values()];
    this.#measure();
    return s;
  }

  #measure(): void {
    const s = this.#snapshot;
    let bytes = 0;
    const copying = new Map<TableStatus, number>();
    for (const t of this.#tables.values()) {
      bytes += t.bytesDone;
      if (t.state.name === 'copying') copying.set(t, t.rowsDone);
      else t.rowsPerSecond = null;
    }
    const at = this.#now();
    const sample: Sample = { at, bytes, rows: s.totals.rowsDone, appliedRows: s.stream?.rows ?? 0, transactions: s.stream?.transactions ?? 0, copying };
    // However many readers there are, ten seconds hold some fifty samples.
    if (at - (this.#samples.at(-1)?.at ?? -Infinity) >= sampleEveryMs) this.#samples.push(sample);
    while (this.#samples.length > 2 && at - this.#samples[0]!.at > rateWindowMs) this.#samples.shift();
    const first = this.#samples[0]!;
    const seconds = (at - first.at) / 1000;
    if (seconds < 0.5) return;
    const rate = (now: number, then: number) => Math.max(0, (now - then) / seconds);
    s.rates = {
      copyBytesPerSecond: rate(sample.bytes, first.bytes), copyRowsPerSecond: rate(sample.rows, first.rows),
      appliedRowsPerSecond: s.stream ? rate(sample.appliedRows, first.appliedRows) : null,
      appliedTransactionsPerSecond: s.stream ? rate(sample.transactions, first.transactions) : null,
    };
    for (const [t, rows] of copying) {
      const then = this.#samples.find((x) => x.copying.has(t));
      t.rowsPerSecond = !then || at - then.at < 500 ? null : (Math.max(0, rows - then.copying.get(t)!) * 1000) / (at - then.at);
    }
    const left = s.totals.bytes - s.totals.bytesDone;
    const speed = s.rates.copyBytesPerSecond ?? 0;
    s.estimateMs = s.phase === 'copying' && speed > 0 ? Math.round((left / speed) * 1000) : null;
  }

  #setState(t: TableStatus, state: TableState, at: string): void {
    if (t.state.name !== state.name) t.stateSince = at;
    const again = (state.name === 'pending' || state.name === 'copying') && t.state.name !== 'pending' && t.state.name !== 'copying';
    // Copied again: what was counted before belongs to rows that are thrown away.
    if (again) Object.assign(t, { bytesDone: 0, rowsDone: 0, partsDone: 0 });
    if (state.name !== 'copying') t.partsRunning = 0;
    t.state = state.name === 'paused' ? { ...state, reason: redact(state.reason) } : state;
  }

  #table(ref: TableRef): TableStatus {
    const key = tableKey(ref);
    let t = this.#tables.get(key);
    if (!t) {
      const before = this.#recalled.get(key);
      t = {
        schema: ref.schema, name: ref.name, state: { name: 'pending' }, stateSince: new Date(this.#now()).toISOString(), bytes: before?.bytes ?? 0, bytesDone: 0, rows: before?.rows ?? -1, rowsDone: before?.rowsDone ?? 0,
        parts: before?.parts ?? 1, partsDone: before?.partsDone ?? 0, partsRunning: 0, rowsPerSecond: null, indexes: before?.indexes ?? 0, indexesDone: before?.indexesDone ?? 0, building: [], inserts: 0,
        updates: 0, deletes: 0,
      };
      this.#tables.set(key, t);
    }
    return t;
  }

  /** What happens goes to the log as well, as it does on stderr; what only tells that something goes on does not. */
  #note(event: JobEvent, at: string): void {
    if (event.type === 'phase' && event.phase === this.#snapshot.phase) return;
    if (event.type === 'step' && event.status === 'running') return;
    const { schemaObjects } = this.#snapshot;
    if (event.type === 'schema-objects' && event.total === schemaObjects.total && schemaObjects.done >= event.total) return;
    const entry = logEntry(event);
    if (entry && (entry.level !== 'debug' || event.type === 'log')) this.#log(at, entry.level, entry.message);
  }

  #log(at: string, level: LogLine['level'], message: string): void {
    this.#logLines += 1;
    this.#snapshot.log.push({ n: this.#logLines, at, level, message: redact(message) });
    if (this.#snapshot.log.length > logLinesKept) this.#snapshot.log.shift();
  }
}
