import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { ownJob } from '../../src/server/job-control.ts';
import { startServer } from '../../src/server/server.ts';
import { sampleJob, startStreaming } from '../support/sample-job.ts';

const main = resolve(import.meta.dirname, '../../src/cli/main.ts');
const tsx = import.meta.resolve('tsx');
const running = new Set<ChildProcess>();
afterEach(() => {
  for (const child of running) child.kill('SIGKILL');
});

/** Runs pgweave in a pseudo-terminal of util-linux's `script`, 100 columns by 30 rows. */
function inTerminal(args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  const command = `stty cols 100 rows 30; exec "${process.execPath}" --import "${tsx}" "${main}" ${args.map((a) => `'${a}'`).join(' ')}`;
  const clean = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(VITEST|NODE_ENV|NODE_OPTIONS|PGWEAVE_|NO_COLOR)/.test(name)));
  const child = spawn('script', ['-qfec', command, '/dev/null'], { env: { ...clean, TERM: 'xterm-256color', SHELL: '/bin/sh', ...env }, stdio: ['pipe', 'pipe', 'inherit'] });
  running.add(child);
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk;
  });
  const ended = new Promise<number | null>((done) => child.once('close', (code) => {
    running.delete(child);
    done(code);
  }));
  return { text: () => text, press: (keys: string) => child.stdin.write(keys), ended, sees: (what: string | RegExp) => vi.waitFor(() => expect(text).toMatch(what), { timeout: 60_000, interval: 100 }) };
}

describe.runIf(process.platform === 'linux' && existsSync('/usr/bin/script'))('pgweave tui in a pseudo-terminal', () => {
  it('attaches to a job by its API, steers it, and gives the terminal back', async () => {
    const token = 'a-token-that-is-long-enough';
    const asked: string[] = [];
    const job = sampleJob({ tables: 30 });
    startStreaming(job, 1);
    await using server = await startServer({
      control: ownJob(() => job.status.read(), {}, { pause: async () => void asked.push('pause'), resume: async () => void asked.push('resume'), table: async () => {}, switchover: async () => {} }), port: 0, token,
    });
    const terminal = inTerminal(['tui', '--connect', server.url], { PGWEAVE_API_TOKEN: token });
    await terminal.sees(/shop: old\.example → new\.example/);
    await terminal.sees(/public\.orders .*paused/);
    expect(terminal.text()).toContain('\u001b[?1049h');
    terminal.press('p');
    await terminal.sees(/Pause was asked for/);
    expect(asked).toEqual(['pause']);
    terminal.press('\u001b[B');
    await terminal.sees(/2 to \d+ of 30/);
    terminal.press('q');
    expect(await terminal.ended).toBe(0);
    expect(terminal.text()).toContain('\u001b[?1049l');
    expect(terminal.text()).not.toContain(token);
    // The job was left alone.
    expect(asked).toEqual(['pause']);
  }, 120_000);

  it('says what to do where nothing answers', async () => {
    const terminal = inTerminal(['tui', '--connect', 'http://127.0.0.1:1']);
    expect(await terminal.ended).toBe(1);
    expect(terminal.text()).toMatch(/cannot reach the API at http:\/\/127\.0\.0\.1:1/);
    expect(terminal.text()).toMatch(/--api-port/);
  }, 120_000);
});
