// Writes each command's --help into its page under docs/.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fillHelp, helpTexts } from './help-blocks.ts';

const texts = helpTexts();
const folder = join(import.meta.dirname, '../docs');
for (const name of readdirSync(folder).filter((file) => file.endsWith('.md'))) {
  const path = join(folder, name);
  const page = readFileSync(path, 'utf8');
  const filled = fillHelp(page, texts);
  if (filled !== page) writeFileSync(path, filled);
}
