import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { chromium, type BrowserContext, type Page } from 'playwright-core';

const root = resolve(import.meta.dirname, '../..');
const places = [process.env['PGWEAVE_CHROMIUM'], '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
const executable = places.find((path) => path !== undefined && existsSync(path));

/**
 * Whether the browser tests can run. Without a browser they fail where CI is set, since a build that does not run them proves nothing; elsewhere
 * they are left out, with a line that says how to get them.
 */
export function hasBrowser(): boolean {
  if (executable !== undefined) return true;
  const how = 'The browser tests need Chromium: apt-get install chromium, or name one in PGWEAVE_CHROMIUM.';
  if (process.env['CI']) throw new Error(how);
  process.stderr.write(`\n  ${how} They are NOT run now.\n\n`);
  return false;
}

export interface Browser extends AsyncDisposable {
  readonly context: BrowserContext;
  /** A new page that records what goes wrong in it and what it receives. */
  open(size?: { width: number; height: number }): Promise<BrowserPage>;
}

export interface BrowserPage {
  readonly page: Page;
  /** Errors of scripts and of the console. */
  readonly problems: string[];
  /** Every answer's text and every WebSocket frame. */
  readonly received: string[];
}

/** Chromium with a fresh profile; closed and removed by `await using`. */
export async function launchBrowser(): Promise<Browser> {
  const profile = mkdtempSync(join(tmpdir(), 'pgwbrowser-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: executable!, headless: true,
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage'],
  });
  context.setDefaultTimeout(60_000);
  return {
    context,
    async open(size = { width: 1440, height: 900 }) {
      const page = await context.newPage();
      await page.setViewportSize(size);
      const problems: string[] = [];
      const received: string[] = [];
      page.on('pageerror', (error) => problems.push(error.message));
      page.on('console', (message) => {
        // A refused or lost connection is told by the browser itself; the page shows it in its own way.
        if (message.type() === 'error' && !/WebSocket connection|Failed to load resource/.test(message.text())) problems.push(message.text());
      });
      page.on('response', (response) => void response.text().then((text) => received.push(text), () => undefined));
      page.on('websocket', (socket) => socket.on('framereceived', ({ payload }) => received.push(payload.toString())));
      return { page, problems, received };
    },
    async [Symbol.asyncDispose]() {
      await context.close();
      rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

/**
 * The built dashboard in a folder of the test's own, so that a build that runs beside it changes nothing: a copy of the package's where that is newer than
 * its sources, else a build. Removed by `using`.
 */
export function builtDashboard(): { readonly folder: string } & Disposable {
  const folder = mkdtempSync(join(tmpdir(), 'pgwweb-'));
  const built = { folder, [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }) };
  if (copyBuild(folder)) return built;
  const run = spawnSync(process.execPath, [join(root, 'node_modules/vite/bin/vite.js'), 'build', '--config', join(root, 'web/vite.config.ts'), '--outDir', folder, '--logLevel', 'error'], { encoding: 'utf8' });
  if (run.status !== 0) throw new Error(`the dashboard cannot be built:\n${run.stdout}\n${run.stderr}`);
  return built;
}

function copyBuild(folder: string): boolean {
  const from = join(root, 'dist/web');
  const sources = ['web', 'src/core', 'src/server'].flatMap((name) => readdirSync(join(root, name), { recursive: true, encoding: 'utf8' }).map((file) => join(root, name, file)));
  const newest = Math.max(...sources.filter((path) => /\.(tsx?|css|html|js|svg)$/.test(path) && !/\.test\.tsx?$/.test(path)).map((path) => statSync(path).mtimeMs));
  try {
    if (statSync(join(from, 'index.html')).mtimeMs < newest) return false;
    cpSync(from, folder, { recursive: true });
    // Everything that the page names has to be there: a build may have begun meanwhile.
    const named = [...readFileSync(join(folder, 'index.html'), 'utf8').matchAll(/(?:src|href)="(\/[^"]+)"/g)].map(([, path]) => path!);
    const scripts = named.filter((path) => path.endsWith('.js') && path.startsWith('/assets/'));
    const lazy = scripts.flatMap((path) => [...readFileSync(join(folder, path), 'utf8').matchAll(/assets\/[\w.-]+\.(?:js|css)/g)].map(([found]) => `/${found}`));
    return scripts.length > 0 && [...named, ...lazy].every((path) => existsSync(join(folder, path)));
  } catch {
    return false;
  }
}

/** What axe-core finds that is serious or critical, one line each. */
export async function accessibilityFaults(page: Page): Promise<string[]> {
  // Evaluated rather than added as a script, which the page's content security policy forbids.
  await page.evaluate(readFileSync(join(root, 'node_modules/axe-core/axe.min.js'), 'utf8'));
  return await page.evaluate(async () => {
    interface Violation { id: string; impact: string | null; help: string; nodes: { html: string }[] }
    const { axe } = globalThis as unknown as { axe: { run(): Promise<{ violations: Violation[] }> } };
    const { violations } = await axe.run();
    return violations.filter((v) => v.impact === 'serious' || v.impact === 'critical').map((v) => `${v.id}: ${v.help}: ${v.nodes.map((n) => n.html.slice(0, 160)).join(' | ')}`);
  });
}
