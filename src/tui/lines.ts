import { bar, column, cut, displayWidth, visible } from '../cli/render/layout.ts';
import { lagLine, slotLine, tablesLine, titleOf } from '../cli/render/parts.ts';
import type { JobSnapshot, TableStatus } from '../core/snapshot.ts';
import { formatBytes, formatClock, formatCount } from '../core/units.ts';
import { bytesOf, percentOf, phaseWords, stepStatusWords } from '../core/words.ts';
import { displayName } from '../pg/identifiers.ts';
import { copiedFraction, selectTables } from '../server/table-query.ts';

export type Tone = 'plain' | 'bold' | 'dim' | 'ok' | 'run' | 'index' | 'warn' | 'bad';
/** A line of the screen: pieces, each with its tone. */
export type Line = readonly (readonly [Tone, string])[];

const phaseTones: Readonly<Partial<Record<JobSnapshot['phase'], Tone>>> = { failed: 'bad', stopped: 'warn', paused: 'warn', streaming: 'ok', 'switched-over': 'ok', done: 'ok' };

/** Title, phase, elapsed, estimate; lag and throughput; overall bars; slot. */
export function headLines(s: JobSnapshot, width: number, now: number): Line[] {
  const detail = s.phaseDetail === null ? '' : `: ${visible(s.phaseDetail)}`;
  const lines: Line[] = [
    [['bold', titleOf(s)], ['plain', '   '], [phaseTones[s.phase] ?? 'run', `${phaseWords[s.phase]}${detail}`], ['plain', `   ${formatClock(now - Date.parse(s.startedAt))}${s.estimateMs === null ? '' : `   about ${formatClock(s.estimateMs)} left`}`]],
  ];
  const { totals } = s;
  const cells = Math.max(10, Math.min(40, width - 60));
  const percent = percentOf(totals.bytesDone, totals.bytes);
  if (percent !== null) {
    const rate = s.phase === 'copying' && s.rates.copyBytesPerSecond !== null ? `   ${formatBytes(s.rates.copyBytesPerSecond)}/s` : '';
    lines.push([['plain', 'data     '], ['run', bar(totals.bytesDone / totals.bytes, cells)], ['plain', `  ${String(percent).padStart(3)} %   ${bytesOf(totals.bytesDone, totals.bytes)}${rate}`]]);
  }
  if (totals.indexes > 0) {
    lines.push([['plain', 'indexes  '], ['index', bar(totals.indexesDone / totals.indexes, cells)], ['plain', `  ${String(percentOf(totals.indexesDone, totals.indexes)).padStart(3)} %   ${formatCount(totals.indexesDone)} of ${formatCount(totals.indexes)}`]]);
  }
  const lag = lagLine(s);
  if (lag !== null) lines.push([['plain', lag]]);
  const slot = slotLine(s);
  if (slot) lines.push([[slot.serious ? 'bad' : 'dim', slot.text]]);
  if (s.error) lines.push([['bad', visible(s.error.message)]]);
  return lines.map((line) => cutLine(line, width));
}

/** Tables that match, worst first. */
export function matchingTables(s: JobSnapshot, filter: string): TableStatus[] {
  return selectTables(s.tables, { search: filter, sort: 'state', order: 'asc' });
}

/** `public.orders   copying  ████░░░░  51 %   10.0 GB   1,204 rows/s`. */
export function tableLine(t: TableStatus, width: number): Line {
  const nameWidth = Math.max(12, Math.min(44, Math.floor(width * 0.38)));
  const name: readonly [Tone, string] = ['plain', `${column(visible(displayName(t.schema, t.name)), nameWidth)}  `];
  const size = column(formatBytes(t.bytes), 9, 'right');
  const building = t.building[0];
  if (t.state.name === 'paused') return cutLine([name, ['warn', `paused     ${visible(t.state.reason)}`]], width);
  if (t.state.name === 'copying') {
    // What went through the pipe can be more than the table's size on disk.
    const fraction = Math.min(0.99, copiedFraction(t));
    const rate = t.rowsPerSecond === null ? '' : `   ${formatCount(Math.round(t.rowsPerSecond))} rows/s`;
    return cutLine([name, ['run', `copying    ${bar(fraction, 14)}`], ['plain', ` ${String(Math.floor(fraction * 100)).padStart(3)} %  ${size}${rate}`]], width);
  }
  if (building) return cutLine([name, ['index', `indexes    ${visible(building.index)}`], ['plain', ` ${visible(building.phase)}${building.percent === null ? '' : ` ${Math.round(building.percent)} %`}`]], width);
  const changes = t.inserts + t.updates + t.deletes;
  const tone: Tone = t.state.name === 'pending' ? 'dim' : 'ok';
  return cutLine([name, [tone, column(t.state.name, 11)], ['plain', `${size}${changes > 0 ? `   ${formatCount(changes)} changes` : ''}`]], width);
}

export function stepLine(step: JobSnapshot['steps'][number], width: number): Line {
  const tones = { running: 'run', ok: 'ok', warn: 'warn', failed: 'bad', undone: 'warn', skipped: 'dim' } as const;
  return cutLine([['dim', ` ${(step.elapsedMs / 1000).toFixed(3).padStart(8)}  `], ['plain', column(visible(step.name), 24)], [tones[step.status], column(stepStatusWords[step.status], 9)], ['plain', visible(step.detail)]], width);
}

export function logLine(line: JobSnapshot['log'][number], width: number): Line {
  const tone: Tone = line.level === 'error' ? 'bad' : line.level === 'warn' ? 'warn' : line.level === 'debug' ? 'dim' : 'plain';
  return cutLine([['dim', `${line.at.slice(11, 19)}  `], [tone, visible(line.message)]], width);
}

export function tablesTitle(s: JobSnapshot, shown: number, top: number, room: number, filter: string, width: number): Line {
  const range = shown > room ? `   ${formatCount(top + 1)} to ${formatCount(Math.min(shown, top + room))} of ${formatCount(shown)}` : '';
  return cutLine([['bold', 'Tables'], ['plain', `   ${tablesLine(s)}${filter === '' ? '' : `   matching "${visible(filter)}": ${formatCount(shown)}`}${range}`]], width);
}

function cutLine(line: Line, width: number): Line {
  const out: [Tone, string][] = [];
  let left = width;
  for (const [tone, text] of line) {
    if (left <= 0) break;
    const piece = cut(text, left);
    out.push([tone, piece]);
    left -= displayWidth(piece);
  }
  return out;
}
