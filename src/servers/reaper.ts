import { spawn, type ChildProcess } from 'node:child_process';

/**
 * A small process that outlives a crash of ours: its standard input is a pipe from us, so it sees the end of file when we are gone, however we
 * went, and then stops the servers it was told of and removes their folders. It runs plain JavaScript given on its command line, since
 * the sources may not be compiled where tests run.
 */
const script = `
const fs = require('fs'), path = require('path');
const folders = new Set(); let text = '';
process.stdin.setEncoding('utf8');
process.stdin.on('data', (d) => { text += d; const lines = text.split('\\n'); text = lines.pop();
  for (const line of lines) { const [verb, folder] = JSON.parse(line); if (verb === 'add') folders.add(folder); else folders.delete(folder); } });
const pids = (folder) => { let dirs = [folder]; try { dirs = dirs.concat(fs.readdirSync(folder).map((n) => path.join(folder, n))); } catch {}
  const found = []; for (const d of dirs) for (const sub of ['', 'data']) { try { const pid = Number(fs.readFileSync(path.join(d, sub, 'postmaster.pid'), 'utf8').split('\\n')[0]); if (pid > 1) found.push(pid); } catch {} } return found; };
const alive = (pid) => { try { process.kill(pid, 0); return true; } catch { return false; } };
const sleep = (ms) => new Promise((r) => setTimeout(r, ms));
process.stdin.on('end', async () => {
  for (const folder of folders) { const all = pids(folder); for (const pid of all) try { process.kill(pid, 'SIGQUIT'); } catch {}
    for (let i = 0; i < 50 && all.some(alive); i++) await sleep(100);
    for (const pid of all) try { process.kill(pid, 'SIGKILL'); } catch {}
    for (let i = 0; i < 20; i++) { try { fs.rmSync(folder, { recursive: true, force: true }); break; } catch { await sleep(100); } } }
  process.exit(0);
});
`;

let reaper: ChildProcess | undefined;

function send(verb: 'add' | 'forget', folder: string): void {
  if (!reaper) {
    reaper = spawn(process.execPath, ['-e', script], { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
    reaper.unref();
    (reaper.stdin as unknown as { unref?: () => void } | null)?.unref?.();
    reaper.stdin?.on('error', () => undefined);
  }
  reaper.stdin?.write(`${JSON.stringify([verb, folder])}\n`);
}

/** From now on: should this process end in any way, servers whose data lie in `folder` (or one level below) are stopped and it is removed. */
export function removeWhenGone(folder: string): void {
  send('add', folder);
}

export function forget(folder: string): void {
  send('forget', folder);
}
