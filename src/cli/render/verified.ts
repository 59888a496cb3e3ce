import { formatClock, formatCount } from '../../core/units.ts';
import { displayName } from '../../pg/identifiers.ts';
import type { ShownRow, TableReport, VerifyReport } from '../../workflows/verify.ts';
import { displayWidth, plain, visible, type Paint } from './layout.ts';
import { shellWord } from './parts.ts';

const rowsShown = 5;
const tablesShown = 50;

const kinds = { missing: 'missing on the target', extra: 'only on the target', changed: 'differs' } as const;
const count = (n: number, noun: string, plural = `${noun}s`) => `${formatCount(n)} ${n === 1 ? noun : plural}`;

/** `pgweave verify` as text lines. `flags`: what to add to the command that is proposed, such as ` --job shop`. */
export function renderVerified(report: VerifyReport, options: { readonly paint?: Paint; readonly flags?: string; readonly values?: boolean } = {}): string[] {
  const paint = options.paint ?? plain;
  const { totals } = report;
  const compared = totals.equal + totals.different;
  const at = report.lsn === null ? '' : ` at ${report.lsn}`;
  const pause = report.pausedMs === null ? '' : `; the applier paused for ${formatCount(report.pausedMs)} ms`;
  const sample = report.sample === null ? '' : ` (a sample of ${report.sample} %)`;
  const lines = [`${count(compared, 'table')}, ${count(totals.rows, 'row')} compared${sample}${at} in ${formatClock(report.durationMs)}${pause}`];
  const notable = report.tables.filter((t) => t.status !== 'equal' || t.repaired !== null || t.notes.length > 0);
  const told = notable.filter((t) => t.status !== 'left-out');
  const width = Math.min(40, Math.max(0, ...told.slice(0, tablesShown).map((t) => displayWidth(nameOf(t)))));
  for (const table of told.slice(0, tablesShown)) lines.push(...tableLines(table, width, options.values !== false, paint));
  if (told.length > tablesShown) lines.push(`  and ${formatCount(told.length - tablesShown)} more: --json`);
  const behind = report.sequences.filter((s) => s.status !== 'equal' && s.status !== 'ahead');
  // While changes stream sequences stay behind; the note says so once.
  if (report.mode === 'plain' || report.mode === 'stopped') {
    for (const s of behind.slice(0, 20)) lines.push(`  ${visible(displayName(s.schema, s.name))}   sequence ${s.status === 'missing' ? 'is missing on the target' : `${s.status === 'behind' ? 'is behind' : 'differs'}: next value ${s.source} here, ${s.target} there`}`);
  }
  const objects = report.largeObjects;
  if (objects && objects.missing + objects.extra + objects.changed > 0) {
    lines.push(`  ${count(objects.missing + objects.extra + objects.changed, 'large object')} of ${formatCount(objects.compared)}: ${formatCount(objects.missing)} missing, ${formatCount(objects.extra)} only on the target, ${formatCount(objects.changed)} changed   ${objects.shown.slice(0, rowsShown).map((o) => `${o.oid} ${kinds[o.kind]}`).join('   ')}`);
  }
  for (const note of report.notes) lines.push(`note: ${visible(note)}`);
  const words = [`${count(totals.equal, 'table')} equal`];
  if (totals.different > 0) words.push(paint('red', `${formatCount(totals.different)} ${totals.different === 1 ? 'differs' : 'differ'}`));
  if (totals.notCompared > 0) words.push(paint('yellow', `${formatCount(totals.notCompared)} not compared`));
  if (totals.leftOut > 0) words.push(`${formatCount(totals.leftOut)} left out (${[...new Set(notable.filter((t) => t.status === 'left-out').map((t) => t.reason ?? ''))].map((r) => r.split(':')[0]).join(', ')})`);
  const different = report.tables.filter((t) => t.status === 'different' && t.reason === null);
  const names = different.slice(0, 5).map(nameOf).join(',');
  const next = different.length === 0 ? '' : `  pgweave verify${options.flags ?? ''}${different.length <= 5 ? ` --tables ${shellWord(names)}` : ''} --repair`;
  lines.push(`${words.join(', ')}.${next}`);
  return lines;
}

function nameOf(table: TableReport): string {
  return visible(displayName(table.table.schema, table.table.name));
}

function tableLines(table: TableReport, width: number, values: boolean, paint: Paint): string[] {
  const name = nameOf(table).padEnd(width);
  const lines: string[] = [];
  const rows = table.missing + table.extra + table.changed;
  if (table.repaired) {
    const { inserted, updated, deleted } = table.repaired;
    lines.push(`  ${name}   repaired: ${[`${formatCount(inserted)} inserted`, `${formatCount(updated)} updated`, `${formatCount(deleted)} deleted`].join(', ')}${table.status === 'equal' ? '; equal now' : ''}`);
  }
  if (table.status === 'not-compared') lines.push(`  ${name}   ${paint('yellow', 'not compared')}: ${visible(table.reason ?? '')}`);
  if (table.status === 'different') {
    const shown = table.shown.slice(0, rowsShown);
    const what = rows > 0 ? `${count(rows, 'row')} ${rows === 1 ? 'differs' : 'differ'}` : 'differs';
    // One or two short ones stand on the line itself, as they are read at a glance.
    const texts = shown.map((row) => rowText(row, values));
    lines.push(`  ${name}   ${paint('red', what)}${table.reason === null ? '' : `: ${visible(table.reason)}`}${texts.length <= 2 && texts.join('').length < 120 ? texts.map((t) => `   ${t}`).join('') : ''}`);
    if (texts.length > 2 || texts.join('').length >= 120) for (const text of texts) lines.push(`      ${text}`);
    const left = rows - shown.reduce((sum, row) => sum + row.count, 0);
    if (left > 0 && shown.length > 0) lines.push(`      and ${formatCount(left)} more`);
  }
  for (const note of table.notes) lines.push(`  ${name}   note: ${visible(note)}`);
  return lines;
}

function rowText(row: ShownRow, values: boolean): string {
  const times = row.count > 1 ? `${formatCount(row.count)} times ` : '';
  const value = (v: string | null) => (v === null ? 'NULL' : v === '' ? "''" : v);
  if (row.key === null) return visible(`${times}${kinds[row.kind]}${row.columns.length === 0 ? '' : `: (${row.columns.map((c) => value(row.kind === 'missing' ? c.source : c.target)).join(', ')})`}`);
  const key = Object.entries(row.key).map(([name, v]) => `${name}=${v}`).join(' ');
  if (row.kind !== 'changed') return visible(`${key}: ${kinds[row.kind]}`);
  return visible(`${key}: ${row.columns.map((c) => (values ? `${c.name} ${value(c.source)} here, ${value(c.target)} there` : c.name)).join('; ')}`);
}
