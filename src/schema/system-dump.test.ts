import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { systemDumpers } from './system-dump.ts';

const folder = mkdtempSync(join(tmpdir(), 'pgweave-path-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it('folders of PATH that cannot be looked into, and programs that are no pg_dump, are passed over', async () => {
  symlinkSync('loop', join(folder, 'loop'));
  writeFileSync(join(folder, 'file'), '');
  writeFileSync(join(folder, 'pg_dump'), '#!/bin/sh\necho "pg_dump (PostgreSQL) 99.3"\n', { mode: 0o755 });
  // A loop of links stands for a folder without permission, which root does not know.
  const found = await systemDumpers({ PATH: [join(folder, 'loop'), join(folder, 'file'), join(folder, 'nowhere'), folder].join(':') });
  expect(found[0]).toEqual({ path: join(folder, 'pg_dump'), version: '99.3', major: 99 });
});
