import { isRunning } from '../../core/state-file.ts';
import type { JobSnapshot, TableStatus } from '../../core/snapshot.ts';
import { formatClock, formatCount, formatDuration } from '../../core/units.ts';
import { isOnWayBack } from '../../core/way-back.ts';
import { clockTime, phaseWords } from '../../core/words.ts';
import { displayName } from '../../pg/identifiers.ts';
import { cut, plain, visible, type Paint } from './layout.ts';
import { jobFlag, lagLine, shellWord, slotLine, tablesLine, titleOf } from './parts.ts';
import { renderProgress } from './progress.ts';

export interface StatusOptions {
  /** Milliseconds since 1970. */
  readonly now: number;
  readonly paint?: Paint;
  /** Columns; without it lines are not cut. */
  readonly width?: number;
  /** Whether a job runs behind the snapshot; found out from the snapshot's own process where it is not given. */
  readonly running?: boolean;
  /** Paused tables shown in full; the rest is counted. Default 20. */
  readonly pausedShown?: number;
}

const copyPhases: readonly string[] = ['preparing', 'schema', 'copying', 'indexes', 'finishing'];

/** `pgweave status` as text lines. Pure but for the look at the writer's process when `running` is not given. */
export function renderStatus(snapshot: JobSnapshot, options: StatusOptions): string[] {
  const paint = options.paint ?? plain;
  const running = options.running ?? isRunning(snapshot, options.now);
  const lines = [`${paint('bold', titleOf(snapshot))}   ${where(snapshot, running, options.now, paint)}`];
  if (!running) lines.push(...notRunning(snapshot, options.now, paint));
  if (copyPhases.includes(snapshot.phase)) {
    // The same bars as the live view, without its headline; what is at work is only shown while something works.
    lines.push(...renderProgress(snapshot, { width: options.width ?? 120, now: options.now, paint, workLines: running ? 6 : 0 }).slice(1).filter((line) => running || !line.startsWith('  and ')));
  } else {
    const lag = lagLine(snapshot);
    if (lag !== null) lines.push(lag);
    const paused = snapshot.tables.filter((t) => t.state.name === 'paused');
    lines.push(`${tablesLine(snapshot)}${paused.length > 0 ? ':' : ''}`, ...pausedLines(snapshot, paused, options.pausedShown ?? 20, paint));
    const slot = slotLine(snapshot);
    if (slot) lines.push(slot.serious ? paint('red', slot.text) : slot.text);
  }
  if (snapshot.verified) {
    const v = snapshot.verified;
    lines.push(`verified ${clockTime(v.at, options.now)}: ${formatCount(v.tables)} tables, ${formatCount(v.rows)} rows, ${v.differing === 0 ? 'all equal' : `${formatCount(v.differing)} differ`}${v.lsn === null ? '' : ` at ${v.lsn}`}`);
  }
  if (snapshot.wayBack?.open === true) lines.push(`the way back is open: slot ${snapshot.wayBack.slot}`);
  if (snapshot.error) {
    lines.push(paint('red', `failed: ${visible(snapshot.error.message)}`));
    if (snapshot.error.hint !== null) lines.push(`  ${visible(snapshot.error.hint)}`);
  }
  const next = nextStep(snapshot, running);
  if (next !== null) lines.push(next);
  return options.width === undefined ? lines : lines.map((line) => cut(line, options.width!));
}

function where(snapshot: JobSnapshot, running: boolean, now: number, paint: Paint): string {
  const word = phaseWords[snapshot.phase];
  const detail = snapshot.phaseDetail === null ? '' : ` (${visible(snapshot.phaseDetail)})`;
  const said = snapshot.phase === 'failed' ? paint('red', word) : snapshot.phase === 'paused' ? paint('yellow', word) : word;
  if (running) return `${said} since ${clockTime(snapshot.phaseSince, now)}${detail}${snapshot.estimateMs === null ? '' : `   about ${formatClock(snapshot.estimateMs)} left`}`;
  return `${said} ${clockTime(snapshot.phaseSince, now)}${detail}`;
}

function notRunning(snapshot: JobSnapshot, now: number, paint: Paint): string[] {
  const age = formatDuration(Math.max(0, now - Date.parse(snapshot.writtenAt)));
  return [paint('yellow', `Nothing runs now. This was written at ${clockTime(snapshot.writtenAt, now)} UTC, ${age} ago.`)];
}

function pausedLines(snapshot: JobSnapshot, paused: readonly TableStatus[], most: number, paint: Paint): string[] {
  const shown = paused.slice(0, most);
  const names = shown.map((t) => visible(displayName(t.schema, t.name)));
  const width = Math.min(40, Math.max(0, ...names.map((n) => n.length)));
  const lines: string[] = [];
  for (const [i, t] of shown.entries()) {
    if (t.state.name !== 'paused') continue;
    lines.push(`  ${names[i]!.padEnd(width)}  ${paint('yellow', 'paused')}${t.state.lsn === null ? '' : ` at ${t.state.lsn}`}: ${visible(t.state.reason)}`);
    lines.push(`  ${' '.repeat(width)}  pgweave table ${shellWord(displayName(t.schema, t.name))}${jobFlag(snapshot)} --retry | --skip-transaction | --copy-again`);
  }
  if (paused.length > most) lines.push(`  and ${formatCount(paused.length - most)} more: pgweave status${jobFlag(snapshot)} --json`);
  return lines;
}

/** What the person does next; null while there is nothing to do but wait. */
function nextStep(snapshot: JobSnapshot, running: boolean): string | null {
  const job = jobFlag(snapshot);
  const again = `Go on with the same command: pgweave ${snapshot.command}${job} …`;
  if (snapshot.phase === 'done') return null;
  if (snapshot.phase === 'switched-over') {
    const target = snapshot.target ? `Point the application at ${visible(`${snapshot.target.host}:${snapshot.target.port}/${snapshot.target.database}`)}.` : 'Point the application at the target.';
    return snapshot.wayBack?.open === true ? `${target} To go back: pgweave switchover${job} --back` : target;
  }
  if (!running) return snapshot.command === '' ? null : again;
  const paused = snapshot.totals.tablesPaused;
  if (paused > 0) return `Next: settle the paused ${paused === 1 ? 'table' : 'tables'}, then pgweave verify${job}, then pgweave switchover${job}.`;
  if (snapshot.phase === 'paused') return `Next: resume it, in the dashboard or with POST /api/v1/resume.`;
  if (snapshot.phase === 'streaming' && isOnWayBack(snapshot)) return `The way back is open. To return: pgweave switchover${job} --back. To leave it for good: pgweave cleanup${job}`;
  if (snapshot.phase === 'streaming') {
    const proven = snapshot.verified !== undefined && snapshot.verified.differing === 0;
    return proven ? `Next: pgweave switchover${job}.` : `Next: pgweave verify${job}, then pgweave switchover${job}.`;
  }
  return null;
}
