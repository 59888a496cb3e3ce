import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { fillHelp, helpTexts } from '../scripts/help-blocks.ts';

const texts = helpTexts();
const folder = join(import.meta.dirname, '../docs');

describe('docs', () => {
  it.each([...texts.keys()])('has the help of `pgweave %s` as it is (npm run docs writes it)', (name) => {
    const page = join(folder, `${name.split(' ')[0]}.md`);
    expect(existsSync(page), `docs/${name.split(' ')[0]}.md is missing`).toBe(true);
    const text = readFileSync(page, 'utf8');
    expect(text).toContain(`<!-- help:${name} -->`);
    expect(fillHelp(text, texts)).toBe(text);
  });
});
