import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '../..');

/** How `pgweave` is run: the build where it is newer than every source, since it starts several times faster; else the sources. */
const command = buildIsCurrent() ? [join(root, 'dist/cli/main.js')] : ['--import', import.meta.resolve('tsx'), join(root, 'src/cli/main.ts')];

function buildIsCurrent(): boolean {
  const built = statSync(join(root, 'dist/cli/main.js'), { throwIfNoEntry: false })?.mtimeMs ?? 0;
  return readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' }).every((name) => statSync(join(root, 'src', name)).mtimeMs <= built);
}

export interface CliResult {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CliRun {
  readonly child: ChildProcess;
  readonly pid: number;
  /** Ends when the process ends. */
  readonly done: Promise<CliResult>;
  /** What it has written so far. */
  output(): { stdout: string; stderr: string };
}

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** Starts `pgweave ARGS` as a process of its own. The environment has no PG* variables but those given. */
export function startCli(args: readonly string[], env: Readonly<Record<string, string>> = {}): CliRun {
  const clean = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(PG|PGWEAVE_|VITEST|NODE_OPTIONS)/.test(name)));
  const child = spawn(process.execPath, [...command, ...args], { env: { ...clean, NO_COLOR: '1', ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  running.add(child);
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const done = new Promise<CliResult>((resolveDone) => {
    child.once('close', (code, signal) => {
      running.delete(child);
      resolveDone({ code, signal, stdout, stderr });
    });
  });
  return { child, pid: child.pid!, done, output: () => ({ stdout, stderr }) };
}

/** Runs `pgweave ARGS` to its end. */
export function runCli(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<CliResult> {
  return startCli(args, env).done;
}

/** A state folder for one test; removed by `using`. */
export function stateFolder(): { readonly path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), 'pgwstate-'));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}
