import { mkdirSync, readdirSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ownJob, type JobActions, type JobControl } from '../../src/server/job-control.ts';
import { startServer, type RunningServer } from '../../src/server/server.ts';
import { JobStatus } from '../../src/core/snapshot.ts';
import { formatCount } from '../../src/core/units.ts';
import { parseConninfo } from '../../src/pg/conninfo.ts';
import { clone } from '../../src/workflows/clone.ts';
import { Follower, type FollowResult } from '../../src/workflows/follow.ts';
import { runSwitchover } from '../../src/workflows/run-switchover.ts';
import { accessibilityFaults, builtDashboard, hasBrowser, launchBrowser, type Browser, type BrowserPage } from '../support/browser.ts';
import { cleanupAll } from '../support/jobs.ts';
import { sampleJob, startStreaming } from '../support/sample-job.ts';
import { createDatabase, sharedServer, waitFor, type TestDatabase } from '../support/servers.ts';

const password = 'never-in-a-browser-7f3a';
const images = resolve(import.meta.dirname, '../../docs/img');

/** Screenshots of the manual are made only on request: they differ with the fonts of the machine. */
async function picture(page: BrowserPage['page'], name: string): Promise<void> {
  if (!process.env['PGWEAVE_SCREENSHOTS']) return;
  mkdirSync(images, { recursive: true });
  await page.screenshot({ path: join(images, `${name}.png`), fullPage: false });
}

const text = (page: BrowserPage['page']) => page.locator('main').innerText();

async function shows(page: BrowserPage['page'], what: string | RegExp): Promise<void> {
  await page.getByText(what).first().waitFor({ state: 'visible' }).catch(async (error: unknown) => {
    throw new Error(`the page does not show ${String(what)} but:\n${await page.locator('body').innerText()}`, { cause: error });
  });
}

function actionsOf(follower: Follower, status: JobStatus, ends: { source: TestDatabase['spec']; target: TestDatabase['spec']; job: string }): JobActions {
  return {
    pause: () => follower.pause(),
    resume: () => Promise.resolve(follower.resume()),
    table: () => Promise.reject(new Error('not used here')),
    switchover: async (request, signal) => {
      await runSwitchover({ ...ends, signal, onEvent: status.emit, ...(request.timeoutMs === undefined ? {} : { timeoutMs: request.timeoutMs }), ...(request.reverse === undefined ? {} : { reverse: request.reverse }), ...(request.verify === undefined ? {} : { verify: request.verify }) });
    },
  };
}

/** As the command line does: the stream is closed as soon as the follower ends, for a switchover waits for that. */
async function runAndClose(follower: Follower): Promise<FollowResult> {
  await using running = follower;
  return await running.run();
}

describe.runIf(hasBrowser())('the dashboard in a browser', () => {
  let browser: Browser;
  let built: ReturnType<typeof builtDashboard>;
  const serve = (control: JobControl, options: { port?: number; token?: string } = {}): Promise<RunningServer> => startServer({ control, port: 0, dashboard: built.folder, ...options });
  beforeAll(async () => {
    built = builtDashboard();
    browser = await launchBrowser();
  });
  afterAll(async () => {
    await browser[Symbol.asyncDispose]();
    built[Symbol.dispose]();
  });

  it('shows a real migration, agrees with both databases, comes back after its server went away, and switches over', async () => {
    const source = await createDatabase(await sharedServer(16), 'dash');
    const target = await createDatabase(await sharedServer(18), 'dash');
    const job = `dash_${process.pid}`;
    // The server trusts loopback; the password is there to be looked for afterwards.
    const ends = { source: parseConninfo(source.uri.replace('postgres@', `postgres:${password}@`)), target: parseConninfo(target.uri.replace('postgres@', `postgres:${password}@`)), job };
    let follower: Follower | undefined;
    let following: Promise<FollowResult> | undefined;
    let server: RunningServer | undefined;
    try {
      await source.run(`
        create table orders (id bigserial primary key, note text not null);
        create table customers (id int primary key, name text);
        insert into orders (note) select repeat('x', 100) || i from generate_series(1, 3000) i;
        insert into customers select i, 'c' || i from generate_series(1, 200) i;`);
      const status = new JobStatus(job, 'clone');
      let actions: JobActions | null = null;
      const control: JobControl = { read: () => status.read(), state: () => ({ mode: 'job', running: true, note: null }), config: () => ({ jobs: 2, source: `postgres://app:${password}@h/d`, password }), get actions() { return actions; } };
      server = await serve(control);
      const { page, problems, received } = await browser.open();
      await page.goto(server.url);
      await shows(page, 'Nothing needs you now');

      await clone({ source: ends.source, target: ends.target, job, mode: 'follow', jobs: 2, roles: false, onEvent: status.emit });
      follower = await Follower.open({ ...ends, onEvent: status.emit });
      following = runAndClose(follower);
      following.catch(() => undefined);
      actions = actionsOf(follower, status, ends);
      await shows(page, 'Verify, then switch over');

      // What the page says of each table is what the databases hold.
      await page.getByRole('navigation', { name: 'Main', exact: true }).getByRole('link', { name: 'Tables' }).click();
      const row = (name: string) => page.getByRole('row').filter({ hasText: name });
      await row('public.orders').getByText('Streaming').waitFor();
      const [counted] = await target.query<{ orders: string; customers: string }>('select (select count(*) from orders)::text as orders, (select count(*) from customers)::text as customers');
      expect(await row('public.orders').getByRole('gridcell').nth(3).innerText()).toBe(formatCount(Number(counted!.orders)));
      expect(await row('public.customers').getByRole('gridcell').nth(3).innerText()).toBe(formatCount(Number(counted!.customers)));
      await source.run(`insert into orders (note) select 'later' from generate_series(1, 41) i; update customers set name = 'z' where id <= 7; delete from customers where id > 198`);
      await row('public.orders').getByRole('gridcell').filter({ hasText: /^41$/ }).waitFor();
      await row('public.customers').getByRole('gridcell').filter({ hasText: /^9$/ }).waitFor();

      // Pause from the page holds the target; resume lets it go on.
      await page.goto(`${server.url}/#/overview`);
      await page.getByRole('button', { name: 'Pause' }).click();
      await shows(page, 'The job is paused');
      await source.run(`insert into orders (note) values ('while paused')`);
      await page.getByRole('button', { name: 'Resume' }).click();
      await waitFor('the held row', async () => (await target.query(`select from orders where note = 'while paused'`)).length === 1);
      await shows(page, 'Verify, then switch over');
      expect(await accessibilityFaults(page)).toEqual([]);

      // The server goes away: the page says so, and comes back by itself with what happened meanwhile.
      const { port } = server;
      await server.close();
      await shows(page, /^Not connected since/);
      await shows(page, 'Connect again');
      expect(await page.getByRole('alert').innerText()).toMatch(/Not connected to pgweave since .*The job itself may well go on/s);
      expect(await accessibilityFaults(page)).toEqual([]);
      await source.run(`insert into orders (note) select 'unseen' from generate_series(1, 100) i`);
      server = await serve(control, { port });
      await shows(page, /^Live, updated/);
      await page.goto(`${server.url}/#/tables`);
      await row('public.orders').getByRole('gridcell').filter({ hasText: /^142$/ }).waitFor();

      // The switchover from the page.
      await page.goto(`${server.url}/#/switchover`);
      const button = page.getByRole('button', { name: 'Switch over now' });
      expect(await button.isDisabled()).toBe(true);
      await page.getByLabel(/^Type .* to go on/).fill('something else');
      expect(await button.isDisabled()).toBe(true);
      expect(await accessibilityFaults(page)).toEqual([]);
      await page.getByLabel(/^Type .* to go on/).fill(source.name);
      await button.click();
      await shows(page, 'Switched over');
      const told = await text(page);
      expect(told).toMatch(/Writes were refused for\s+\d+\.\d\d s/);
      expect(told).toMatch(/new writes refused/i);
      expect(told).toMatch(/drained/i);
      expect(told).toMatch(/The way back\s+Open/);
      expect(await accessibilityFaults(page)).toEqual([]);
      await expect(source.run(`insert into orders (note) values ('too late')`)).rejects.toMatchObject({ code: '25006' });
      await target.run(`insert into orders (note) values ('on the new primary')`);
      const [after] = await target.query<{ n: string }>('select count(*)::text as n from orders');
      expect(after!.n).toBe('3143');

      // The job is over, and its server goes with it: that is no alarm.
      await following;
      await server.close();
      server = undefined;
      await shows(page, /^The job has ended: switched over/);
      await shows(page, 'Switched over');

      expect(problems).toEqual([]);
      expect(received.length).toBeGreaterThan(10);
      // This is the test of the search itself: what must be there is found.
      expect(received.some((answer) => answer.includes('public') && answer.includes('orders'))).toBe(true);
      expect(received.filter((answer) => answer.includes(password))).toEqual([]);
      expect(await page.content()).not.toContain(password);
      await page.close();
    } finally {
      follower?.stop();
      await following?.catch(() => undefined);
      await server?.close();
      await cleanupAll(source.spec, target.spec);
      await source.run(`alter database "${source.name}" reset default_transaction_read_only`).catch(() => undefined);
      await target.drop();
      await source.drop();
    }
  }, 240_000);

  it('stays small with 5,000 tables, and is used by keyboard alone', async () => {
    const job = sampleJob({ tables: 5000 });
    startStreaming(job, 3);
    await using server = await serve(ownJob(() => job.status.read(), {}, null));
    const { page, problems } = await browser.open();
    await page.goto(`${server.url}/#/tables`);
    await shows(page, '5,000 tables,');
    const rows = page.locator('[role=row]');
    expect(await rows.count()).toBeLessThan(80);
    // Worst first.
    expect(await rows.nth(1).innerText()).toMatch(/Paused/);
    const scroller = page.locator('[role=rowgroup]');
    const scrollTo = (share: number) => scroller.evaluate((element, part) => Object.assign(element, { scrollTop: (element as unknown as { scrollHeight: number }).scrollHeight * part }) && undefined, share);
    for (let i = 1; i <= 20; i += 1) await scrollTo(i / 20);
    await page.locator('[aria-rowindex="5001"]').waitFor();
    expect(await rows.count()).toBeLessThan(80);
    await scrollTo(0);

    await page.keyboard.press('/');
    await page.keyboard.type('invoices_4');
    await shows(page, /^\d+ tables,/);
    await page.locator('[role=row]').filter({ hasText: 'invoices_4' }).first().waitFor();
    await page.keyboard.press('Escape');
    await page.getByPlaceholder('Search 5,000 tables').fill('');
    await page.locator('[role=row][tabindex="0"]').focus();
    await page.keyboard.press('ArrowDown');
    await page.locator('[aria-rowindex="3"]:focus').waitFor();
    await page.keyboard.press('End');
    await page.locator('[aria-rowindex="5001"]:focus').waitFor();
    await page.keyboard.press('Home');
    await page.locator('[aria-rowindex="2"]:focus').waitFor();
    await page.keyboard.press('Enter');
    await page.locator('aside h2').waitFor();
    await page.keyboard.press('Escape');
    await page.locator('[aria-rowindex="2"]:focus').waitFor();
    expect(problems).toEqual([]);
    await page.close();
  }, 120_000);

  it('has no serious accessibility fault on any page, light and dark, from phone to wide screen', async () => {
    const job = sampleJob({ tables: 40 });
    startStreaming(job, 2);
    job.send(
      { type: 'warning', code: 'w', message: 'collation version differs', hint: 'Indexes are built anew.' }, { type: 'log', level: 'error', message: 'connection lost' }, { type: 'log', level: 'info', message: 'connected again' },
      { type: 'step', name: 'checks', status: 'ok', detail: 'lag 0 B', elapsedMs: 0 }, { type: 'verified', tables: 38, rows: 1000, differing: 0, lsn: '0/1' },
      { type: 'topology', topology: { kind: 'mesh', nodes: ['a', 'b', 'c'].map((name) => ({ name, role: 'node', reachable: true, version: '17.5' })), edges: [{ from: 'a', to: 'b', state: 'on-time', lagMs: 3 }, { from: 'b', to: 'a', state: 'behind', lagMs: 7000 }, { from: 'a', to: 'c', state: 'not-connected', detail: 'timed out' }] } },
    );
    await using server = await serve(ownJob(() => job.status.read(), { jobs: 4 }, { pause: async () => {}, resume: async () => {}, table: async () => {}, switchover: async () => {} }));
    const { page, problems } = await browser.open();
    const faults: string[] = [];
    const look = async (hash: string, width: number, colorScheme: 'light' | 'dark') => {
      await page.setViewportSize({ width, height: 900 });
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      await page.goto(`${server.url}/${hash}`);
      await page.locator('main h2, main [role=grid], main [role=log]').first().waitFor();
      for (const fault of await accessibilityFaults(page)) faults.push(`${hash} ${width} ${colorScheme}: ${fault}`);
      const overflow = await page.evaluate<number>('document.documentElement.scrollWidth - document.documentElement.clientWidth');
      if (overflow > 0) faults.push(`${hash} ${width}: ${overflow} px wider than the window`);
    };
    for (const hash of ['#/overview', '#/tables', '#/tables?open=public&name=orders', '#/switchover', '#/mesh', '#/logs', '#/configuration']) {
      await look(hash, 1440, 'light');
      await look(hash, 390, 'dark');
    }
    for (const hash of ['#/overview', '#/tables']) await look(hash, 800, 'dark');
    job.send({ type: 'topology', topology: { kind: 'fan-out', nodes: [{ name: 's', role: 'source', reachable: true, retainedBytes: 1024, slotsUsed: 2, slotsMax: 10 }, { name: 't1', role: 'target', reachable: true }, { name: 't2', role: 'target', reachable: false }], edges: [{ from: 's', to: 't1', state: 'on-time', lagMs: 3 }, { from: 's', to: 't2', state: 'not-connected', detail: 'timed out' }] } });
    await look('#/fan-out', 1440, 'dark');
    await look('#/fan-out', 390, 'light');
    expect(faults).toEqual([]);
    expect(problems).toEqual([]);
    await page.close();
  }, 180_000);

  it('asks for the token, keeps it out of the address, and opens with it', async () => {
    const token = 'a-token-that-is-long-enough';
    const job = sampleJob({ tables: 3 });
    await using server = await serve(ownJob(() => job.status.read(), {}, null), { token });
    const { page, problems } = await browser.open();
    await page.goto(server.url);
    await shows(page, 'This pgweave wants a token');
    await page.getByLabel('Token').fill('not-the-token-but-long');
    await page.getByRole('button', { name: 'Open the dashboard' }).click();
    await shows(page, 'That token is not right.');
    expect(await accessibilityFaults(page)).toEqual([]);
    await page.getByLabel('Token').fill(token);
    await page.getByRole('button', { name: 'Open the dashboard' }).click();
    await shows(page, /^Live, updated/);
    expect(page.url()).not.toContain(token);
    const { page: second } = await browser.open();
    await second.goto(`${server.url}/#token=${token}`);
    await shows(second, /^Live, updated/);
    expect(second.url()).not.toContain(token);
    expect(problems).toEqual([]);
    await page.close();
    await second.close();
  }, 120_000);

  it('loads less than 150 KB of compressed JavaScript for its first paint, nothing from elsewhere', async () => {
    const job = sampleJob({ tables: 3 });
    await using server = await serve(ownJob(() => job.status.read(), {}, null));
    const { page } = await browser.open();
    const loaded: string[] = [];
    page.on('request', (request) => loaded.push(request.url()));
    await page.goto(server.url);
    await shows(page, /^Live, updated/);
    const assets = built.folder;
    const scripts = loaded.map((url) => new URL(url).pathname).filter((path) => path.endsWith('.js'));
    expect(scripts.length).toBeGreaterThan(0);
    const bytes = scripts.reduce((sum, path) => sum + statSync(`${assets}${path}.gz`).size, 0);
    expect(bytes).toBeLessThan(150 * 1024);
    const largest = readdirSync(join(assets, 'assets')).filter((name) => name.endsWith('.js')).length;
    expect(largest).toBeGreaterThan(scripts.length);
    expect(loaded.filter((url) => !url.startsWith(server.url) && !url.startsWith(server.url.replace('http', 'ws')))).toEqual([]);
    await page.close();
  }, 120_000);

  it('is drawn for the manual at three widths', async () => {
    const job = sampleJob({ tables: 412 });
    const names = job.status.read().tables.map(({ schema, name }) => ({ schema, name }));
    for (const [i, table] of names.entries()) if (i > 8 && i < 200) job.send({ type: 'table-state', table, state: { name: 'copied', lsn: '3A/9E00F1B8' } });
    for (const table of names.slice(0, 6)) job.send({ type: 'copy-part', table, part: 0, status: 'started' });
    job.send({ type: 'slot-health', slot: 'pgweave_default', walStatus: 'reserved', retainedBytes: 3.2 * 1024 ** 3, safeBytes: 61 * 1024 ** 3 });
    const checks = async () => [
      { name: 'Earlier switchover', status: 'ok', detail: 'None.' }, { name: 'Tables', status: 'failed', detail: '2 of 412 tables are paused: public.orders, public.events.', fix: 'Settle each with: pgweave table NAME --retry | --skip-transaction | --copy-again.' },
      { name: 'Stream', status: 'ok', detail: 'A marker written to the source was applied on the target 12 ms later; 0 B of WAL were not confirmed before it.' }, { name: 'Refusing writes', status: 'ok', detail: 'The database can be made read-only and 412 tables can be locked.' },
      { name: 'Other sessions', status: 'ok', detail: '38 sessions are ended; applications connect again to the target.' }, { name: 'Sequences', status: 'ok', detail: '3 can be read and are carried over.' },
      { name: 'Large objects, unlogged tables', status: 'ok', detail: 'None.' }, { name: 'Way back', status: 'ok', detail: 'It can be kept open: wal_level = logical, 9 slots and 10 WAL senders of the target are free.' },
    ] as const;
    await using server = await serve(ownJob(() => job.status.read(), {}, { pause: async () => {}, resume: async () => {}, table: async () => {}, switchover: async () => {}, checks }));
    const { page, problems } = await browser.open();
    await page.goto(server.url);
    for (let second = 0; second < (process.env['PGWEAVE_SCREENSHOTS'] ? 20 : 1); second += 1) {
      job.clock.advance(1000);
      for (const [i, table] of names.slice(0, 6).entries()) job.send({ type: 'copy-progress', table, part: 0, bytes: (18 + 9 * Math.sin(second + i)) * 1024 ** 2, rows: 30_000 });
      await page.getByRole('status').filter({ hasText: new Date(job.clock.now).toISOString().slice(11, 19) }).waitFor();
    }
    await shows(page, 'Copying');
    await picture(page, 'dashboard-copying-1440');
    startStreaming(job, 2);
    await page.setViewportSize({ width: 390, height: 844 });
    await page.emulateMedia({ colorScheme: 'dark' });
    await shows(page, /Decide what to do with 2 paused tables/);
    await picture(page, 'dashboard-paused-390-dark');
    await page.setViewportSize({ width: 1440, height: 900 });
    await page.emulateMedia({ colorScheme: 'light' });
    await page.goto(`${server.url}/#/tables?open=public&name=orders`);
    await page.locator('aside h2').waitFor();
    await picture(page, 'dashboard-tables-1440');
    await page.setViewportSize({ width: 900, height: 1000 });
    await page.goto(`${server.url}/#/switchover`);
    await shows(page, 'Confirm');
    // The page asks by itself.
    await shows(page, /412 tables can be locked/);
    expect(await page.getByRole('button', { name: 'Switch over now' }).isDisabled()).toBe(true);
    await picture(page, 'dashboard-switchover-900');
    expect(problems).toEqual([]);
    await page.close();
  }, 120_000);
});
