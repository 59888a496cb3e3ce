import { redact } from '../../core/redact.ts';
import { formatCount } from '../../core/units.ts';
import type { ComparedObject, ComparedSide, CompareResult } from '../../workflows/compare.ts';
import { displayWidth, plain, visible, type Paint } from './layout.ts';

type Attribute = ComparedObject['attributes'][number];
type Value = Attribute['source'];

const headings = { missing: 'only on the source', extra: 'only on the target', different: 'different' } as const;
/** Longer values are cut; `--json` has them whole. */
const mostCharacters = 400;
const mostLines = 12;

/** `pgweave compare` as text lines. */
export function renderDifferences(result: CompareResult, paint: Paint = plain): string[] {
  const lines = sides(result);
  if (result.rules.length > 0) lines.push('', paint('bold', 'rules applied'), ...result.rules.map((rule) => `  ${visible(rule)}`));
  for (const change of ['missing', 'extra', 'different'] as const) {
    const objects = result.differences.filter((difference) => difference.change === change).toSorted((a, b) => (a.object < b.object ? -1 : 1));
    if (objects.length === 0) continue;
    lines.push('', paint('bold', headings[change]));
    for (const object of objects) lines.push(`  ${visible(object.object)}${object.onTarget ? `, on the target ${visible(nameOf(object.onTarget.object, object.kind))}` : ''}${partsText(object)}`, ...object.attributes.flatMap(attributeLines));
  }
  if (result.notes.length > 0) {
    lines.push('', paint('dim', 'not counted'));
    for (const note of result.notes) for (const { name, source, target } of note.attributes) lines.push(`  ${visible(note.object)}  ${name} ${text(source)} on the source, ${text(target)} on the target`);
  }
  lines.push('', result.equal ? paint('green', `The schemas are equal: ${formatCount(result.source.objects)} objects compared.`) : summary(result, paint));
  return lines;
}

/** Without the kind, which stands before it already. */
function nameOf(object: string, kind: string): string {
  return object.startsWith(`${kind} `) ? object.slice(kind.length + 1) : object;
}

function sides(result: CompareResult): string[] {
  const cells = (name: string, side: ComparedSide) => [name, `PostgreSQL ${side.version}`, `${visible(side.host)}:${side.port}/${visible(side.database)}`, `${formatCount(side.objects)} objects`];
  const rows = [cells('source', result.source), cells('target', result.target)];
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => displayWidth(row[i]!))));
  return rows.map((row) => row.map((cell, i) => cell + ' '.repeat(widths[i]! - displayWidth(cell))).join('  ').trimEnd());
}

function summary(result: CompareResult, paint: Paint): string {
  const total = result.differences.length;
  return paint('red', `${formatCount(total)} ${total === 1 ? 'difference' : 'differences'}: ${formatCount(result.missing)} only on the source, ${formatCount(result.extra)} only on the target, ${formatCount(result.different)} different.`);
}

function partsText(object: ComparedObject): string {
  if (object.parts.length === 0) return '';
  const counts = new Map<string, number>();
  for (const { kind } of object.parts) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  return `   with ${[...counts].map(([kind, n]) => `${formatCount(n)} ${n === 1 ? kind : plural(kind)}`).join(', ')}`;
}

function plural(kind: string): string {
  if (kind.endsWith('y')) return kind.endsWith('key') ? `${kind}s` : `${kind.slice(0, -1)}ies`;
  return kind.endsWith('x') ? `${kind}es` : kind.endsWith('s') ? kind : `${kind}s`;
}

function text(value: Value): string {
  if (value === null || value === '') return value === null ? '(none)' : "''";
  return visible(redact(Array.isArray(value) ? value.map(String).join(', ') : String(value)));
}

function attributeLines({ name, source, target }: Attribute): string[] {
  if (Array.isArray(source) || Array.isArray(target)) {
    const ofSource = listOf(source);
    const ofTarget = listOf(target);
    const only = (a: readonly string[], b: readonly string[]) => a.filter((item) => !b.includes(item));
    const lost = only(ofSource, ofTarget);
    const gained = only(ofTarget, ofSource);
    // The same members in another order.
    if (lost.length === 0 && gained.length === 0) return sideBySide(name, ofSource.join(', '), ofTarget.join(', '));
    return sideBySide(name, lost.length === 0 ? '(nothing more)' : lost.join(', '), gained.length === 0 ? '(nothing more)' : gained.join(', '));
  }
  const a = redact(source === null ? '(none)' : String(source));
  const b = redact(target === null ? '(none)' : String(target));
  if (!a.includes('\n') && !b.includes('\n')) return sideBySide(name, text(source), text(target));
  return changedLines(name, a.split('\n'), b.split('\n'));
}

function listOf(value: Value): string[] {
  return Array.isArray(value) ? value.map((item) => visible(redact(String(item)))) : value === null ? [] : [text(value)];
}

function sideBySide(name: string, source: string, target: string): string[] {
  const short = (value: string) => (value.length > mostCharacters ? `${value.slice(0, mostCharacters)}…` : value);
  return [`      ${name}`, `        source  ${short(source)}`, `        target  ${short(target)}`];
}

/** Of long texts, the lines between what both begin with and what both end with. */
function changedLines(name: string, a: readonly string[], b: readonly string[]): string[] {
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end += 1;
  const part = (lines: readonly string[], side: string) => {
    const changed = lines.slice(start, lines.length - end);
    const shown = changed.slice(0, mostLines).map((line) => `        ${side}  ${visible(line)}`);
    return changed.length > mostLines ? [...shown, `        ${side}  … ${formatCount(changed.length - mostLines)} more lines`] : shown.length > 0 ? shown : [`        ${side}  (nothing here)`];
  };
  return [`      ${name}, from line ${start + 1}`, ...part(a, 'source'), ...part(b, 'target')];
}
