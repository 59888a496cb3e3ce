// Draws what a terminal showed (tmux capture-pane -p -e) as an SVG: npx tsx scripts/terminal-picture.ts < capture > picture.svg
import { readFileSync } from 'node:fs';

const colours: Readonly<Record<string, string>> = { 31: '#ff8078', 32: '#4cc38a', 33: '#e3a93f', 34: '#7aabff', 35: '#b9a1ff', 36: '#7fd1de' };
const charWidth = 7.8;
const lineHeight = 19;

interface Run { readonly text: string; readonly bold: boolean; readonly dim: boolean; readonly colour: string | undefined }

/** Cuts a line into runs of one style. Only the sequences that our own output uses are known. */
function runsOf(line: string): Run[] {
  const runs: Run[] = [];
  let bold = false;
  let dim = false;
  let colour: string | undefined;
  // eslint-disable-next-line no-control-regex -- the escape character is what is looked for
  for (const part of line.split(/(\u001b\[[0-9;]*m)/)) {
    if (!part.startsWith('\u001b[')) {
      if (part !== '') runs.push({ text: part, bold, dim, colour });
      continue;
    }
    for (const code of part.slice(2, -1).split(';')) {
      if (code === '0' || code === '') [bold, dim, colour] = [false, false, undefined];
      else if (code === '1') bold = true;
      else if (code === '2') dim = true;
      else if (code === '39') colour = undefined;
      else colour = colours[code] ?? colour;
    }
  }
  return runs;
}

const escape = (text: string) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
const lines = readFileSync(0, 'utf8').trimEnd().split('\n').map((line) => line.trimEnd());
const plainLength = (line: string) => runsOf(line).reduce((sum, run) => sum + run.text.length, 0);
const width = Math.ceil(Math.max(...lines.map(plainLength)) * charWidth) + 40;
const height = lines.length * lineHeight + 36;
const out: string[] = [];
for (const [i, line] of lines.entries()) {
  let column = 0;
  for (const run of runsOf(line)) {
    const style = `${run.bold ? ' font-weight="600"' : ''}${run.dim ? ' opacity="0.7"' : ''}${run.colour ? ` fill="${run.colour}"` : ''}`;
    out.push(`<text x="${(20 + column * charWidth).toFixed(1)}" y="${30 + i * lineHeight}"${style} textLength="${(run.text.length * charWidth).toFixed(1)}" xml:space="preserve">${escape(run.text)}</text>`);
    column += run.text.length;
  }
}
process.stdout.write(`<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img"><rect width="100%" height="100%" rx="8" fill="#15181c"/><g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="13" fill="#e8ebee">${out.join('')}</g></svg>\n`);
