/** Text of a terminal: how wide it is, cut and padded to columns, painted. */

export type Style = 'bold' | 'dim' | 'green' | 'yellow' | 'red' | 'blue' | 'magenta';
export type Paint = (style: Style, text: string) => string;

const codes: Readonly<Record<Style, readonly [number, number]>> = {
  bold: [1, 22], dim: [2, 22], red: [31, 39], green: [32, 39], yellow: [33, 39], blue: [34, 39], magenta: [35, 39],
};

export const plain: Paint = (_style, text) => text;
export const ansi: Paint = (style, text) => (text === '' ? '' : `\u001b[${codes[style][0]}m${text}\u001b[${codes[style][1]}m`);

/** Colour where the stream is a terminal and nobody asked for none (https://no-color.org). */
export function paintFor(stream: { isTTY?: boolean | undefined }, env: NodeJS.ProcessEnv = process.env): Paint {
  if (env['NO_COLOR'] !== undefined && env['NO_COLOR'] !== '') return plain;
  return stream.isTTY === true && env['TERM'] !== 'dumb' ? ansi : plain;
}

// oxlint-disable-next-line no-control-regex -- the escape character is what is looked for
const ansiPattern = /\u001b\[[0-9;]*m/g;
// oxlint-disable-next-line no-control-regex -- names from a catalog can hold control characters, which would move the cursor
const controlPattern = /[\u0000-\u0008\u000a-\u001a\u001c-\u001f\u007f-\u009f]/g;
const segmenter = new Intl.Segmenter(undefined, { granularity: 'grapheme' });
/** East Asian wide and full-width blocks and emoji (Unicode UAX 11): two columns each. */
const wide = /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffe6]|[\u{1f300}-\u{1f64f}\u{1f680}-\u{1f6ff}\u{1f900}-\u{1f9ff}\u{20000}-\u{3fffd}]/u;
const zeroWidth = /^[\p{Mn}\p{Me}\p{Cf}]+$/u;

/** Replaces control characters, so that a name with a newline or an escape in it cannot garble the screen. */
export function visible(text: string): string {
  return text.replaceAll('\u001b', '␛').replace(controlPattern, '·').replaceAll('\t', ' ');
}

/** Columns that a text takes; colour codes take none. */
export function displayWidth(text: string): number {
  const bare = text.replace(ansiPattern, '');
  if (/^[\u0020-\u007e]*$/.test(bare)) return bare.length;
  let width = 0;
  for (const { segment } of segmenter.segment(bare)) width += graphemeWidth(segment);
  return width;
}

function graphemeWidth(segment: string): number {
  if (zeroWidth.test(segment)) return 0;
  return wide.test(segment) ? 2 : 1;
}

/** Cuts to `width` columns, with an ellipsis where something was left out. Colour codes are kept whole and closed. */
export function cut(text: string, width: number): string {
  if (width <= 0) return '';
  if (displayWidth(text) <= width) return text;
  let out = '';
  let used = 0;
  let painted = false;
  // oxlint-disable-next-line no-control-regex -- see above
  for (const piece of text.split(/(\u001b\[[0-9;]*m)/)) {
    if (piece.startsWith('\u001b')) {
      out += piece;
      painted = true;
      continue;
    }
    for (const { segment } of segmenter.segment(piece)) {
      const w = graphemeWidth(segment);
      if (used + w > width - 1) return `${out}…${painted ? '\u001b[0m' : ''}`;
      out += segment;
      used += w;
    }
  }
  return out;
}

/** Pads or cuts to exactly `width` columns. */
export function column(text: string, width: number, align: 'left' | 'right' = 'left'): string {
  const fitted = cut(text, width);
  const gap = ' '.repeat(Math.max(0, width - displayWidth(fitted)));
  return align === 'left' ? fitted + gap : gap + fitted;
}

/** `██████░░░░`, `cells` wide. Full only at 1, empty only at 0, so that it never says "done" too early. */
export function bar(fraction: number, cells: number): string {
  const part = Number.isFinite(fraction) ? Math.min(1, Math.max(0, fraction)) : 0;
  let full = Math.floor(part * cells);
  if (part > 0 && full === 0) full = 1;
  return '█'.repeat(full) + '░'.repeat(cells - full);
}
