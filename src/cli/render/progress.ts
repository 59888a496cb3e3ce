import type { Phase } from '../../core/events.ts';
import type { JobSnapshot, TableStatus } from '../../core/snapshot.ts';
import { formatBytes, formatClock, formatCount, formatDuration } from '../../core/units.ts';
import { bytesOf, percentOf, phaseWords } from '../../core/words.ts';
import { displayName } from '../../pg/identifiers.ts';
import { bar, column, cut, displayWidth, plain, visible, type Paint } from './layout.ts';
import { copiesRunning, indexesRunning, lagLine, slotLine, tablesLine, titleOf } from './parts.ts';

export interface ProgressOptions {
  /** Columns of the terminal; no line is longer. */
  readonly width: number;
  /** Milliseconds since 1970. */
  readonly now: number;
  readonly paint?: Paint;
  /** Most lines of tables and indexes at work; the rest is counted. */
  readonly workLines?: number;
}

const ended: readonly Phase[] = ['done', 'stopped', 'failed', 'switched-over'];
const streams: readonly Phase[] = ['catching-up', 'streaming', 'paused', 'switching-over', 'switched-over'];

/** The live view of a running job: a few lines, none wider than the terminal. Pure. */
export function renderProgress(snapshot: JobSnapshot, options: ProgressOptions): string[] {
  const paint = options.paint ?? plain;
  const { width } = options;
  const lines: string[] = [headline(snapshot, options, paint)];
  const streaming = streams.includes(snapshot.phase);
  if (!streaming) lines.push(...copyLines(snapshot, width, paint), ...workLines(snapshot, width, options.workLines ?? 6));
  else {
    const lag = lagLine(snapshot);
    if (lag !== null) lines.push(lag);
    lines.push(tablesLine(snapshot));
    lines.push(...workLines(snapshot, width, options.workLines ?? 6));
  }
  const paused = snapshot.tables.filter((t) => t.state.name === 'paused');
  for (const t of paused.slice(0, 3)) if (t.state.name === 'paused') lines.push(paint('yellow', `  ${nameOf(t)}  paused: ${visible(t.state.reason)}`));
  if (paused.length > 3) lines.push(paint('yellow', `  and ${formatCount(paused.length - 3)} more paused tables`));
  const slot = slotLine(snapshot);
  if (slot) lines.push(slot.serious ? paint('red', slot.text) : paint('dim', slot.text));
  return lines.map((line) => cut(line, width));
}

function headline(snapshot: JobSnapshot, options: ProgressOptions, paint: Paint): string {
  const elapsed = formatClock(options.now - Date.parse(snapshot.startedAt));
  const word = snapshot.phaseDetail === null ? phaseWords[snapshot.phase] : `${phaseWords[snapshot.phase]}: ${visible(snapshot.phaseDetail)}`;
  const coloured = snapshot.phase === 'failed' ? paint('red', word) : snapshot.phase === 'paused' ? paint('yellow', word) : paint('bold', word);
  const left = snapshot.estimateMs === null || ended.includes(snapshot.phase) ? '' : `about ${formatClock(snapshot.estimateMs)} left`;
  return [paint('bold', titleOf(snapshot)), coloured, elapsed, left].filter((part) => part !== '').join('      ');
}

function copyLines(snapshot: JobSnapshot, width: number, paint: Paint): string[] {
  const { totals, schemaObjects, rates } = snapshot;
  const cells = width >= 100 ? 28 : width >= 70 ? 16 : 0;
  const lines: string[] = [];
  if (schemaObjects.total > 0) {
    const done = schemaObjects.done >= schemaObjects.total;
    lines.push(`schema   ${done ? `done  ${formatCount(schemaObjects.total)} objects` : `${formatCount(schemaObjects.done)} of ${formatCount(schemaObjects.total)} objects`}`);
  }
  const meter = (label: string, done: number, total: number, style: 'blue' | 'magenta', facts: readonly string[]) => {
    const percent = percentOf(done, total);
    const shown = percent === null ? '' : `${cells > 0 ? `${paint(style, bar(done / total, cells))}  ` : ''}${String(percent).padStart(3)} %`;
    lines.push([`${label.padEnd(9)}${shown}`, ...facts.filter((f) => f !== '')].join('    '));
  };
  if (totals.tables > 0) {
    // Percent of bytes; of tables where none of them has a size yet.
    const copied = totals.tablesCopied + totals.tablesStreaming + totals.tablesPaused;
    const jobs = copiesRunning(snapshot);
    const rate = snapshot.phase === 'copying' && rates.copyBytesPerSecond !== null ? `${formatBytes(rates.copyBytesPerSecond)}/s` : '';
    const facts = [bytesOf(totals.bytesDone, totals.bytes), rate, `${formatCount(copied)} of ${formatCount(totals.tables)} tables`, jobs > 0 ? `${jobs} ${jobs === 1 ? 'job' : 'jobs'}` : ''];
    if (totals.bytes > 0) meter('data', totals.bytesDone, totals.bytes, 'blue', facts);
    else meter('data', copied, totals.tables, 'blue', facts);
  }
  if (totals.indexes > 0) {
    const jobs = indexesRunning(snapshot);
    meter('indexes', totals.indexesDone, totals.indexes, 'magenta', [`${formatCount(totals.indexesDone)} of ${formatCount(totals.indexes)}`, jobs > 0 ? `${jobs} ${jobs === 1 ? 'job' : 'jobs'}` : '']);
  }
  return lines;
}

function nameOf(t: { schema: string; name: string }): string {
  return visible(displayName(t.schema, t.name));
}

/** Tables being copied, two a line where there is room, then indexes being built. */
function workLines(snapshot: JobSnapshot, width: number, most: number): string[] {
  const copying = snapshot.tables.filter((t) => t.state.name === 'copying').sort((a, b) => b.bytes - a.bytes);
  const cells = [
    ...copying.map((t) => copyWork(t)),
    ...snapshot.tables.flatMap((t) => t.building.map((b) => `index ${nameOf({ schema: t.schema, name: b.index })}    ${visible(b.phase)}${b.percent === null ? '' : `  ${Math.round(b.percent)} %`}`)),
  ];
  const perLine = width >= 150 ? 2 : 1;
  const cellWidth = Math.floor((width - 2) / perLine) - 2;
  const lines: string[] = [];
  for (let i = 0; i < cells.length && lines.length < most; i += perLine) {
    lines.push(`  ${cells.slice(i, i + perLine).map((cell) => (perLine === 1 ? cell : column(cell, cellWidth))).join('  ').trimEnd()}`);
  }
  const left = cells.length - lines.length * perLine;
  if (left > 0) lines.push(`  and ${formatCount(left)} more`);
  return lines;
}

function copyWork(t: TableStatus): string {
  // What went through the pipe can be more than the table's size on disk; it is not done before its last part is.
  const percent = percentOf(Math.min(t.bytesDone, t.bytes * 0.99), t.bytes);
  const parts = [
    nameOf(t), t.parts > 1 ? `part ${Math.min(t.parts, t.partsDone + 1)} of ${t.parts}` : '', percent === null ? `${formatCount(t.rowsDone)} rows` : `${percent} %`,
    t.rowsPerSecond === null ? '' : `${formatCount(Math.round(t.rowsPerSecond * 60))} rows/min`,
  ];
  return parts.filter((p) => p !== '').join('   ');
}

/** One line for logs that nobody watches: `copying 51 %, 95.1 of 186 GB, 128 MB/s, 208 of 412 tables`. */
export function progressSummary(snapshot: JobSnapshot): string {
  const { totals, rates, stream } = snapshot;
  const facts: string[] = [];
  if (streams.includes(snapshot.phase) && stream) {
    facts.push(`lag ${formatBytes(stream.lagBytes)}${stream.lagMs === null ? '' : ` (${formatDuration(stream.lagMs)})`}`);
    if (rates.appliedRowsPerSecond !== null) facts.push(`${formatCount(Math.round(rates.appliedRowsPerSecond))} rows/s`);
    facts.push(`applied up to ${stream.appliedLsn}`);
  } else {
    const percent = percentOf(totals.bytesDone, totals.bytes);
    if (percent !== null) facts.push(`${percent} %`, bytesOf(totals.bytesDone, totals.bytes));
    if (snapshot.phase === 'copying' && rates.copyBytesPerSecond !== null) facts.push(`${formatBytes(rates.copyBytesPerSecond)}/s`);
    if (totals.tables > 0) facts.push(`${formatCount(totals.tablesCopied + totals.tablesStreaming + totals.tablesPaused)} of ${formatCount(totals.tables)} tables`);
    if (totals.indexes > 0) facts.push(`${formatCount(totals.indexesDone)} of ${formatCount(totals.indexes)} indexes`);
    if (snapshot.estimateMs !== null) facts.push(`about ${formatClock(snapshot.estimateMs)} left`);
  }
  if (totals.tablesPaused > 0) facts.push(`${formatCount(totals.tablesPaused)} paused`);
  return `${phaseWords[snapshot.phase]}${facts.length > 0 ? ` ${facts.join(', ')}` : ''}`;
}

/** Rows that lines take on a terminal of `columns`: a resize may have wrapped what was drawn before. */
export function rowsTaken(lines: readonly string[], columns: number): number {
  return lines.reduce((rows, line) => rows + Math.max(1, Math.ceil(displayWidth(line) / Math.max(1, columns))), 0);
}
