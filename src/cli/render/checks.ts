import { formatBytes, formatCount } from '../../core/units.ts';
import type { Check, CheckItem, Fix, ValidatedServer, ValidateResult } from '../../workflows/validate.ts';
import { displayWidth, plain, visible, type Paint } from './layout.ts';

export interface ChecksOptions {
  readonly paint?: Paint;
  /** Show the items behind every check, and all of them. */
  readonly details?: boolean;
}

const itemsShown = 10;
const labels = { ok: 'ok  ', warn: 'warn', fail: 'FAIL' } as const;
const styles = { ok: 'green', warn: 'yellow', fail: 'red' } as const;
const placeWords = { source: 'on the source', target: 'on the target', pgweave: 'pgweave' } as const;

/** `pgweave validate` as text lines. */
export function renderChecks(result: ValidateResult, options: ChecksOptions = {}): string[] {
  const paint = options.paint ?? plain;
  const lines = [...serverLines(result), ''];
  for (const check of result.checks) lines.push(...checkLines(check, options.details === true, paint));
  const plural = (n: number, noun: string) => `${formatCount(n)} ${noun}${n === 1 ? '' : 's'}`;
  lines.push('', `${plural(result.failures, 'failure')}, ${plural(result.warnings, 'warning')}. Nothing was changed.`);
  return lines;
}

function serverLines(result: ValidateResult): string[] {
  const describe = (s: ValidatedServer | null) => (s ? [`PostgreSQL ${s.version}`, `${visible(s.host)}:${s.port}/${visible(s.database)}`, `(${s.provider})`] : ['cannot be reached', '', '']);
  const source = describe(result.source);
  const toCome = result.checks.some((c) => c.id === 'target-database');
  const target = toCome ? ['has no such database yet', '', ''] : describe(result.target);
  const holds = (s: ValidatedServer | null, own: string) => (s === null ? '' : own);
  const empty = result.checks.find((c) => c.id === 'target-empty');
  const relations = Number(empty?.facts['relations'] ?? 0);
  const rows = [
    ['source', ...source, holds(result.source, `${formatCount(result.tables)} ${result.tables === 1 ? 'table' : 'tables'}   ${formatBytes(result.bytes)}   ${formatCount(result.sequences)} ${result.sequences === 1 ? 'sequence' : 'sequences'}`)],
    ['target', ...target, holds(result.target, relations === 0 ? 'empty' : `${formatCount(relations)} ${relations === 1 ? 'relation' : 'relations'}   ${formatBytes(result.target?.bytes ?? 0)}`)],
  ];
  const widths = [0, 1, 2, 3].map((i) => Math.max(...rows.map((row) => displayWidth(row[i]!))));
  return rows.map((row) => row.map((cell, i) => (i < 4 ? cell + ' '.repeat(widths[i]! - displayWidth(cell)) : cell)).join('  ').trimEnd());
}

function checkLines(check: Check, details: boolean, paint: Paint): string[] {
  const lines = [`  ${paint(styles[check.status], labels[check.status])}  ${visible(check.summary)}`];
  const open = check.status === 'fail' || details;
  const shown = open ? check.items.slice(0, details ? check.items.length : itemsShown) : [];
  const width = Math.min(40, Math.max(0, ...shown.map((i) => displayWidth(visible(i.subject)))));
  for (const item of shown) lines.push(...itemLines(item, width, check.status, paint));
  const left = check.items.length - shown.length;
  if (left > 0 && open) lines.push(`          and ${formatCount(left)} more: --details`);
  if (check.status === 'ok') return lines;
  if (left > 0 && !open) lines[0] += paint('dim', '  (--details)');
  const anotherAbove = shown.some((item) => item.fix);
  if (check.status === 'fail' || details || check.items.length === 0) lines.push(...check.fix.flatMap((fix, i) => fixLines(fix, '          ', paint, anotherAbove || i > 0)));
  return lines;
}

function itemLines(item: CheckItem, width: number, status: Check['status'], paint: Paint): string[] {
  const subject = visible(item.subject);
  const text = `          ${subject}${' '.repeat(Math.max(0, width - displayWidth(subject)))}   ${visible(item.note)}`;
  return item.fix && status !== 'ok' ? [text, ...fixLines(item.fix, '            ', paint, false)] : [text];
}

/** `another`: whether a fix stands above this one. */
function fixLines(fix: Fix, indent: string, paint: Paint, another: boolean): string[] {
  const text = visible(fix.text);
  switch (fix.kind) {
    case 'sql': return [`${indent}${paint('dim', `${placeWords[fix.on]}:`)}  ${paint('bold', text)}`];
    case 'configuration': return [`${indent}${paint('dim', `${placeWords[fix.on]}:`)}  ${text}`];
    case 'flag': return [`${indent}${paint('dim', another ? 'or give' : 'give')}  ${text}`];
    case 'advice': return [`${indent}${text}`];
  }
}
