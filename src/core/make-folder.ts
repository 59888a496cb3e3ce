import { mkdirSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { PgweaveError } from './errors.ts';

/**
 * Makes a folder with those above it, for its owner only; one that is there stays as it is. Throws `folder-not-made`. Not `mkdir` with `recursive`: below a folder in which none can be made,
 * such as /proc, Node tries for ever (nodejs/node, mkdirSync and ENOENT).
 */
export function makeFolder(path: string): void {
  const missing: string[] = [];
  let at = resolve(path);
  try {
    while (statSync(at, { throwIfNoEntry: false }) === undefined) {
      missing.unshift(at);
      at = dirname(at);
    }
    for (const folder of missing) makeOne(folder);
    if (!statSync(path).isDirectory()) throw new Error('it is no folder');
  } catch (error) {
    throw new PgweaveError('folder-not-made', `cannot make the folder ${path}: ${(error as Error).message}`, { hint: 'Check its permissions and those of the folders above it, or name another one.', cause: error, retry: 'manual' });
  }
}

function makeOne(folder: string): void {
  try {
    mkdirSync(folder, { mode: 0o700 });
  } catch (error) {
    // Somebody else was quicker.
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}
