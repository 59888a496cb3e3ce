import type { Phase, ServerFacts } from '../../src/core/events.ts';
import type { JobSummary, TableStatus } from '../../src/core/snapshot.ts';
import { formatBytes, formatCount, formatDuration } from '../../src/core/units.ts';
import { isOnWayBack } from '../../src/core/way-back.ts';
import { percentOf } from '../../src/core/words.ts';
import type { History } from '../../src/server/history.ts';
import type { JobView } from '../../src/server/messages.ts';
import type { IconName } from './parts/icon.tsx';
import type { Tone } from './parts/ui.tsx';

/** What the pages say about a job, worked out from its snapshot alone. Pure. */

export function tableName(t: { readonly schema: string; readonly name: string }): string {
  return `${t.schema}.${t.name}`;
}

/** A server as people tell it from `other`: its host, and its port where both have the same. */
export function serverName(server: ServerFacts | null, other: ServerFacts | null, unknown: string): string {
  if (!server) return unknown;
  return server.host === other?.host ? `${server.host}:${server.port}` : server.host;
}

export interface TableWord { readonly tone: Tone; readonly icon: IconName; readonly word: string; readonly fraction: number | null }

/** State, shape, word and colour of a table; indexes being built show before the plain state. */
export function tableWord(t: TableStatus): TableWord {
  const { state } = t;
  if (state.name === 'paused') return { tone: 'warn', icon: 'pause', word: 'Paused', fraction: null };
  if (state.name === 'copying') {
    // What went through the pipe can be more than the table's size on disk; it is not done before its last part is.
    const percent = percentOf(Math.min(t.bytesDone, t.bytes * 0.99), t.bytes);
    return { tone: 'run', icon: 'copying', word: percent === null ? 'Copying' : `Copying ${percent} %`, fraction: t.bytes > 0 ? Math.min(0.99, t.bytesDone / t.bytes) : null };
  }
  if (t.building.length > 0) return { tone: 'idx', icon: 'indexes', word: `Indexes, ${t.indexesDone} of ${Math.max(t.indexes, t.indexesDone + t.building.length)} built`, fraction: null };
  if (state.name === 'streaming') return { tone: 'ok', icon: 'streaming', word: 'Streaming', fraction: null };
  if (state.name === 'copied') return { tone: 'ok', icon: 'ok', word: 'Copied', fraction: null };
  return { tone: 'idle', icon: 'pending', word: 'Pending', fraction: null };
}

export type TableFilter = 'all' | 'paused' | 'copying' | 'indexes' | 'pending' | 'copied' | 'streaming';

export function matchesFilter(t: TableStatus, filter: TableFilter): boolean {
  if (filter === 'all') return true;
  if (filter === 'indexes') return t.building.length > 0;
  return t.state.name === filter;
}

export function countTables(tables: readonly TableStatus[]): Readonly<Record<TableFilter, number>> {
  const counts: Record<TableFilter, number> = { all: tables.length, paused: 0, copying: 0, indexes: 0, pending: 0, copied: 0, streaming: 0 };
  for (const t of tables) {
    counts[t.state.name] += 1;
    if (t.building.length > 0) counts.indexes += 1;
  }
  return counts;
}

export interface JobStep { readonly name: string; readonly icon: IconName; readonly tone: Tone; readonly status: 'done' | 'now' | 'todo' | 'failed'; readonly detail: string }

const stepPhases: readonly (readonly [name: string, icon: IconName, phases: readonly Phase[]])[] = [
  ['Prepare', 'ok', ['preparing']],
  ['Schema', 'ok', ['schema']],
  ['Copy', 'copying', ['copying']],
  ['Indexes', 'indexes', ['indexes', 'finishing']],
  ['Streaming', 'streaming', ['catching-up', 'streaming', 'paused']],
  ['Switchover', 'swap', ['switching-over']],
  ['Done', 'ok', ['switched-over', 'done']],
];

/** The way of a job, with how long each part took or what it waits for. */
export function jobSteps(s: JobSummary): JobStep[] {
  const stopped = s.phase === 'failed' || s.phase === 'stopped';
  const lastAlive = stopped ? (s.phases.findLast((p) => p.phase !== 'failed' && p.phase !== 'stopped')?.phase ?? 'preparing') : s.phase;
  const now = stepPhases.findIndex(([, , phases]) => phases.includes(lastAlive));
  const finished = s.phase === 'done' || s.phase === 'switched-over';
  return stepPhases.map(([name, icon, phases], i): JobStep => {
    const took = timeIn(s, phases);
    // Indexes are built while other tables are still copied, so they may have had no time of their own.
    if (name === 'Indexes' && took === null && i < now && s.totals.indexesDone > 0) return { name, icon: 'ok', tone: 'ok', status: 'done', detail: `${formatCount(s.totals.indexesDone)} built` };
    if (i < now || (finished && i === now)) {
      const doneDetail = finished && i === now ? (s.phase === 'switched-over' ? 'The target takes writes' : 'Ended') : took === null ? 'Not part of this run' : `Took ${formatDuration(took)}`;
      return { name, icon: took === null && i < now ? 'pending' : 'ok', tone: took === null && i < now ? 'idle' : 'ok', status: took === null && i < now ? 'todo' : 'done', detail: doneDetail };
    }
    if (i === now) {
      if (stopped) return { name, icon: s.phase === 'failed' ? 'bad' : 'pause', tone: s.phase === 'failed' ? 'bad' : 'warn', status: s.phase === 'failed' ? 'failed' : 'now', detail: s.phase === 'failed' ? 'Failed here' : 'Stopped here' };
      return { name, icon: s.phase === 'paused' ? 'pause' : icon === 'ok' ? 'copying' : icon, tone: s.phase === 'paused' ? 'warn' : icon === 'indexes' ? 'idx' : 'run', status: 'now', detail: nowDetail(s) };
    }
    return { name, icon: 'pending', tone: 'idle', status: 'todo', detail: name === 'Switchover' && now >= 2 ? 'Waits for you' : '' };
  });
}

function nowDetail(s: JobSummary): string {
  const { totals } = s;
  switch (s.phase) {
    case 'schema': return s.schemaObjects.total > 0 ? `${formatCount(s.schemaObjects.done)} of ${formatCount(s.schemaObjects.total)} objects` : '';
    case 'copying': {
      const percent = percentOf(totals.bytesDone, totals.bytes);
      return [percent === null ? '' : `${percent} %`, s.estimateMs === null ? '' : `about ${formatDuration(s.estimateMs)} left`].filter(Boolean).join(', ');
    }
    case 'indexes':
    case 'finishing': return `${formatCount(totals.indexesDone)} of ${formatCount(totals.indexes)}`;
    case 'paused': return 'Paused';
    case 'catching-up': return 'Catching up';
    case 'streaming': return `${formatCount(totals.tablesStreaming)} of ${formatCount(totals.tables)} tables`;
    case 'switching-over': return s.writesRefused?.until === null ? 'Writes are refused' : 'Running';
    default: return s.phaseDetail ?? '';
  }
}

/** Milliseconds that a job spent in phases; null where it never was in one. */
function timeIn(s: JobSummary, phases: readonly Phase[]): number | null {
  let total: number | null = null;
  for (const [i, p] of s.phases.entries()) {
    if (!phases.includes(p.phase)) continue;
    total = (total ?? 0) + Date.parse(s.phases[i + 1]?.since ?? s.writtenAt) - Date.parse(p.since);
  }
  return total;
}

export interface NextAction {
  readonly lead: string;
  readonly text: string;
  readonly button: { readonly label: string; readonly href: string } | { readonly label: string; readonly action: 'resume' } | null;
  readonly error?: string;
}

/** The one thing to do now. */
export function nextAction({ summary: s, state }: JobView): NextAction {
  const paused = s.totals.tablesPaused;
  if (s.phase === 'failed') return { lead: 'The job failed', text: s.error?.hint ?? 'The log says what happened. State is kept: the same command goes on from where it stopped.', button: { label: 'Look at the log', href: '#/logs' }, ...(s.error ? { error: s.error.message } : {}) };
  if (s.slot?.walStatus === 'lost') return { lead: 'The slot is lost', text: 'The source removed WAL that was still needed. Changes are missing on the target; the tables have to be copied again.', button: { label: 'Look at the tables', href: '#/tables' } };
  if (!state.running && s.phase !== 'switched-over' && s.phase !== 'done') return { lead: 'Nothing runs', text: state.note ?? 'The numbers are what the job left behind.', button: null };
  if (s.phase === 'switched-over') {
    return { lead: `Point the application at ${serverName(s.target, s.source, 'the target')}`, text: s.wayBack?.open ? `The way back is open: ${serverName(s.source, s.target, 'the old source')} follows.` : 'The switchover is through.', button: { label: 'See the switchover', href: '#/switchover' } };
  }
  if (s.phase === 'switching-over') return { lead: 'A switchover runs', text: 'Its steps are shown live.', button: { label: 'Watch it', href: '#/switchover' } };
  if (paused > 0) {
    const many = paused > 1;
    return { lead: `Decide what to do with ${many ? `${formatCount(paused)} paused tables` : '1 paused table'}`, text: `${many ? 'Each has' : 'It has'} its error and three ways on. The rest goes on meanwhile.`, button: { label: many ? `Review ${formatCount(paused)} paused tables` : 'Review the paused table', href: '#/tables?state=paused' } };
  }
  if (s.phase === 'paused') return { lead: 'The job is paused', text: 'Changes wait, on the source or in the spool. WAL is kept for them meanwhile.', button: state.canAct ? { label: 'Resume', action: 'resume' } : null };
  if (s.phase === 'streaming' && isOnWayBack(s)) {
    return { lead: `Point the application at ${serverName(s.source, s.target, 'the new primary')}`, text: `It takes writes. The way back is open: ${serverName(s.target, s.source, 'the old source')} follows it.`, button: { label: 'See the switchover', href: '#/switchover' } };
  }
  if (s.phase === 'streaming') {
    const proven = s.verified?.differing === 0;
    return { lead: proven ? 'Switch over when it suits' : 'Verify, then switch over', text: proven ? 'Rows were compared and are equal. The switchover page looks at everything once more before it begins.' : 'The target follows the source. pgweave verify proves that both hold the same rows, or the switchover does with its own check.', button: { label: 'Prepare the switchover', href: '#/switchover' } };
  }
  if (s.phase === 'done') return { lead: 'Done', text: 'Nothing needs you now.', button: null };
  return { lead: 'Nothing needs you now', text: s.phase === 'copying' || s.phase === 'indexes' ? 'A table that cannot go on is paused alone and shown here.' : 'The job is at work.', button: null };
}

/** Whether the job is over, so that its server going away is no fault. */
export function hasEnded({ summary }: JobView): boolean {
  return summary.phase === 'done' || summary.phase === 'stopped' || summary.phase === 'failed' || summary.phase === 'switched-over';
}

export interface Estimate { readonly text: string; readonly range: string | null; readonly basis: string }

/** Time left of the copy: from the rate now, and a range from the rates measured before. Null while nothing is known. */
export function copyEstimate(s: JobSummary, history: History | null): Estimate | null {
  if (s.estimateMs === null) return null;
  const left = s.totals.bytes - s.totals.bytesDone;
  const rates = (history?.series.copyBytesPerSecond ?? []).filter((r) => r !== null && r > 0).map(Number).sort((a, b) => a - b);
  const basis = `At ${formatBytes(s.rates.copyBytesPerSecond ?? 0)}/s, the rate of the last 10 s.`;
  // Fewer than a minute of rates say nothing about a range.
  if (rates.length < 60) return { text: formatDuration(s.estimateMs), range: null, basis };
  const at = (share: number) => rates[Math.min(rates.length - 1, Math.floor(rates.length * share))]!;
  const quick = (left / at(0.9)) * 1000;
  const slow = (left / at(0.1)) * 1000;
  return { text: formatDuration(s.estimateMs), range: `Likely ${formatDuration(quick)} to ${formatDuration(slow)}, at the rates of the last ${formatDuration(rates.length * (history?.stepSeconds ?? 1) * 1000)}`, basis };
}

export interface SlotWord { readonly tone: Tone; readonly icon: IconName; readonly word: string; readonly why: string | null }

/** How well the slot is, by pg_replication_slots.wal_status and the room that is left. */
export function slotWord(slot: NonNullable<JobSummary['slot']>): SlotWord {
  if (slot.walStatus === 'lost') return { tone: 'bad', icon: 'bad', word: 'Lost', why: 'The source removed WAL that was still needed. The job cannot go on from here.' };
  if (slot.walStatus === 'unreserved' || (slot.safeBytes !== null && slot.safeBytes <= 0)) return { tone: 'bad', icon: 'bad', word: 'In danger', why: 'The next checkpoint on the source may remove WAL that is still needed. Raise max_slot_wal_keep_size or let the job catch up.' };
  const share = slot.safeBytes === null ? 0 : slot.retainedBytes / (slot.retainedBytes + slot.safeBytes);
  if (share > 0.5) return { tone: 'warn', icon: 'warn', word: 'Watch', why: 'More than half of the room is used.' };
  return { tone: 'ok', icon: 'ok', word: 'OK', why: slot.safeBytes === null ? 'No limit is set (max_slot_wal_keep_size = -1): the source keeps WAL until its disk is full.' : null };
}

/** The copies that are furthest from their end, by bytes left. */
export function longestCopies(tables: readonly TableStatus[], most: number): TableStatus[] {
  return tables.filter((t) => t.state.name === 'copying').sort((a, b) => b.bytes - b.bytesDone - (a.bytes - a.bytesDone)).slice(0, most);
}
