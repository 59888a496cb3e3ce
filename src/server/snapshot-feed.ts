import { randomUUID } from 'node:crypto';
import type { JobSnapshot, LogLine, TableStatus } from '../core/snapshot.ts';
import { tableKey } from '../core/tables.ts';
import type { JobState } from './messages.ts';

interface Known { row: TableStatus; seq: number }

/** Top-level fields that travel as a whole when they change; `writtenAt` changes with every reading and travels always. */
type Field = Exclude<keyof JobSnapshot, 'tables' | 'log' | 'writtenAt'>;

/**
 * Numbers every change of a job's snapshot, so that each listener gets what changed since the number it has and no more. It holds one copy of
 * the tables whatever the number of listeners; a listener that is slow asks later and gets one message for all that it missed.
 */
export class SnapshotFeed {
  /** Names this feed: numbers of another process mean nothing here. */
  readonly id = randomUUID();
  readonly #read: () => JobSnapshot;
  readonly #state: () => JobState;
  readonly #tables = new Map<string, Known>();
  #order: readonly Known[] = [];
  readonly #fields = new Map<Field, { text: string; seq: number }>();
  #stateText = '';
  #stateSeq = 0;
  #log: readonly LogLine[] = [];
  #logSeq = new Map<number, number>();
  #seq = 0;
  /** Listeners with an older number get everything anew: a table left the job, or the snapshot is another job's. */
  #wholeSince = 0;
  #writtenAt = '';
  #cache = new Map<number, string>();

  constructor(read: () => JobSnapshot, state: () => JobState) {
    this.#read = read;
    this.#state = state;
  }

  get seq(): number {
    return this.#seq;
  }

  /** Looks at the job and numbers what changed. */
  refresh(): void {
    const snapshot = this.#read();
    const seq = this.#seq + 1;
    let changed = snapshot.writtenAt !== this.#writtenAt;
    this.#writtenAt = snapshot.writtenAt;
    const stateText = JSON.stringify(this.#state());
    if (stateText !== this.#stateText) {
      this.#stateText = stateText;
      this.#stateSeq = seq;
      changed = true;
    }
    changed = this.#refreshFields(snapshot, seq) || changed;
    changed = this.#refreshTables(snapshot.tables, seq) || changed;
    changed = this.#refreshLog(snapshot.log, seq) || changed;
    if (changed) {
      this.#seq = seq;
      this.#cache.clear();
    }
  }

  /**
   * The message for a listener that has everything up to `since` of this feed (0 for nothing): JSON text, made once for all that ask from the
   * same number. Null where there is nothing new.
   */
  since(since: number): string | null {
    if (since >= this.#seq && since > 0) return null;
    const from = since < this.#wholeSince || since < 0 ? 0 : since;
    let text = this.#cache.get(from);
    if (text === undefined) {
      text = this.#compose(from);
      this.#cache.set(from, text);
    }
    return text;
  }

  #compose(from: number): string {
    const parts = [`"type":${from === 0 ? '"snapshot"' : '"delta"'}`, `"feed":"${this.id}"`, `"seq":${this.#seq}`, `"since":${from}`, `"writtenAt":${JSON.stringify(this.#writtenAt)}`];
    if (this.#stateSeq > from) parts.push(`"state":${this.#stateText}`);
    const fields: string[] = [];
    for (const [name, field] of this.#fields) if (field.seq > from) fields.push(`"${name}":${field.text}`);
    parts.push(`"summary":{${fields.join(',')}}`);
    const tables: TableStatus[] = [];
    for (const known of this.#tables.values()) if (known.seq > from) tables.push(known.row);
    parts.push(`"tables":${JSON.stringify(tables)}`);
    parts.push(`"log":${JSON.stringify(this.#log.filter((line) => (this.#logSeq.get(line.n) ?? 0) > from))}`);
    return `{${parts.join(',')}}`;
  }

  #refreshFields(snapshot: JobSnapshot, seq: number): boolean {
    let changed = false;
    for (const name of Object.keys(snapshot) as (keyof JobSnapshot)[]) {
      if (name === 'tables' || name === 'log' || name === 'writtenAt') continue;
      const text = JSON.stringify(snapshot[name] ?? null);
      if (this.#fields.get(name)?.text === text) continue;
      // Another run of the job: its numbers may go backwards and its tables may be others.
      if (name === 'startedAt' && this.#fields.has(name)) this.#startAnew(seq);
      this.#fields.set(name, { text, seq });
      changed = true;
    }
    for (const [name, field] of this.#fields) {
      if (name in snapshot || field.text === 'null') continue;
      this.#fields.set(name, { text: 'null', seq });
      changed = true;
    }
    return changed;
  }

  /** A snapshot lists its tables in the order in which they came, as we do, so that looking at the same place nearly always saves a search. */
  #knownAt(i: number, t: TableStatus): Known | undefined {
    const here = this.#order[i];
    return here && here.row.name === t.name && here.row.schema === t.schema ? here : this.#tables.get(tableKey(t));
  }

  #startAnew(seq: number): void {
    this.#wholeSince = seq;
    this.#tables.clear();
    this.#order = [];
    this.#logSeq.clear();
  }

  #refreshTables(tables: readonly TableStatus[], seq: number): boolean {
    let changed = false;
    for (const [i, t] of tables.entries()) {
      const known = this.#knownAt(i, t);
      if (known && sameRow(known.row, t)) continue;
      const row = { ...t, building: [...t.building] };
      if (known) Object.assign(known, { row, seq });
      else this.#tables.set(tableKey(t), { row, seq });
      changed = true;
    }
    if (this.#order.length !== this.#tables.size) this.#order = [...this.#tables.values()];
    if (this.#tables.size > tables.length) {
      const present = new Set(tables.map(tableKey));
      for (const key of this.#tables.keys()) if (!present.has(key)) this.#tables.delete(key);
      this.#order = [...this.#tables.values()];
      this.#wholeSince = seq;
      changed = true;
    }
    return changed;
  }

  #refreshLog(log: readonly LogLine[], seq: number): boolean {
    const before = this.#log.at(-1)?.n ?? 0;
    const last = log.at(-1)?.n ?? 0;
    if (last === before && log.length === this.#log.length) return false;
    this.#log = [...log];
    const kept = new Map<number, number>();
    for (const line of log) kept.set(line.n, this.#logSeq.get(line.n) ?? seq);
    this.#logSeq = kept;
    return true;
  }
}

function sameRow(a: TableStatus, b: TableStatus): boolean {
  return (
    a.bytesDone === b.bytesDone && a.rowsDone === b.rowsDone && a.inserts === b.inserts && a.updates === b.updates && a.deletes === b.deletes && sameState(a.state, b.state) &&
    a.stateSince === b.stateSince && a.partsDone === b.partsDone && a.partsRunning === b.partsRunning && a.rowsPerSecond === b.rowsPerSecond && a.indexesDone === b.indexesDone &&
    a.bytes === b.bytes && a.rows === b.rows && a.parts === b.parts && a.indexes === b.indexes && sameBuilding(a.building, b.building)
  );
}

function sameState(a: TableStatus['state'], b: TableStatus['state']): boolean {
  if (a === b) return true;
  if (a.name !== b.name) return false;
  if (a.name === 'paused' && b.name === 'paused') return a.reason === b.reason && a.lsn === b.lsn;
  return a.name !== 'copied' || b.name !== 'copied' || a.lsn === b.lsn;
}

function sameBuilding(a: TableStatus['building'], b: TableStatus['building']): boolean {
  return a.length === b.length && a.every((x, i) => x.index === b[i]!.index && x.phase === b[i]!.phase && x.percent === b[i]!.percent);
}
