import { unwatchFile, watchFile } from 'node:fs';

/** How often the file is looked at: by polling, since what a container mounts tells of no changes. */
const pollMs = 1000;

/** Calls back when the file changed, and on SIGHUP. Returns what ends it. */
export function watchConfig(path: string | undefined, changed: () => void): () => void {
  if (path !== undefined) {
    watchFile(path, { interval: pollMs, persistent: false }, (now, before) => {
      if (now.mtimeMs !== before.mtimeMs || now.size !== before.size || now.ino !== before.ino) changed();
    });
  }
  process.on('SIGHUP', changed);
  return () => {
    if (path !== undefined) unwatchFile(path);
    process.off('SIGHUP', changed);
  };
}
