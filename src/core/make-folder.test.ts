import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { makeFolder } from './make-folder.ts';

const parent = mkdtempSync(join(tmpdir(), 'pgweave-folder-'));
afterAll(() => rmSync(parent, { recursive: true, force: true }));

describe('makeFolder', () => {
  it('makes what is missing, for its owner only, and leaves what is there', () => {
    const path = join(parent, 'a', 'b', 'c');
    makeFolder(path);
    expect(statSync(path).isDirectory()).toBe(true);
    expect(statSync(join(parent, 'a')).mode & 0o777).toBe(0o700);
    makeFolder(path);
  });

  it('says what stands in the way', () => {
    writeFileSync(join(parent, 'file'), '');
    expect(() => makeFolder(join(parent, 'file'))).toThrow(/it is no folder/);
    expect(() => makeFolder(join(parent, 'file', 'below'))).toThrow(/cannot make the folder .*file\/below/);
    // Node's own recursive mkdir never returns from here.
    if (process.platform === 'linux') expect(() => makeFolder('/proc/nope/below')).toThrow(/cannot make the folder/);
  });
});
