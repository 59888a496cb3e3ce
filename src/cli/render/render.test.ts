import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { sampleJob, startStreaming } from '../../../test/support/sample-job.ts';
import { rememberSecret } from '../../core/redact.ts';
import { ansi, bar, column, cut, displayWidth, visible } from './layout.ts';
import { LiveView } from './live-view.ts';
import { logEntry } from '../../core/log-lines.ts';
import { progressSummary, renderProgress } from './progress.ts';
import { renderStatus } from './status.ts';

const orders = { schema: 'public', name: 'orders' };

/** A terminal that understands what the live view writes: moving up, clearing, hiding the cursor. */
class FakeTerminal {
  readonly isTTY = true;
  columns = 120;
  rows = 30;
  screen: string[] = [];
  writes = 0;
  write(text: string): boolean {
    this.writes += 1;
    // oxlint-disable-next-line no-control-regex -- a terminal's control codes
    for (const piece of text.split(/(\u001b\[\d+A\r\u001b\[J|\u001b\[\?25[lh]|\n)/)) {
      // oxlint-disable-next-line no-control-regex -- a terminal's control codes
      const up = /^\u001b\[(\d+)A/.exec(piece);
      if (up) this.screen.splice(this.screen.length - Number(up[1]));
      else if (piece !== '\n' && piece !== '' && !piece.startsWith('\u001b[?25')) this.screen.push(piece);
    }
    return true;
  }
}

describe('progress', () => {
  it('shows data, rate, tables, indexes, work in hand and the slot while copying', () => {
    const job = sampleJob();
    job.send(
      { type: 'copy-part', table: orders, part: 0, status: 'started' },
      { type: 'index', table: { schema: 'public', name: 'events' }, index: 'orders_customer_idx', status: 'progress', phase: 'building: loading tuples', percent: 44 },
      { type: 'slot-health', slot: 'pgweave_default', walStatus: 'reserved', retainedBytes: 3.2 * 1024 ** 3, safeBytes: 61 * 1024 ** 3 },
    );
    job.status.read();
    job.clock.advance(4000);
    job.send({ type: 'copy-progress', table: orders, part: 0, bytes: 512 * 1024 ** 2, rows: 80_000 });
    expect(renderProgress(job.status.read(), { width: 140, now: job.clock.now })).toEqual([
      'shop: old.example → new.example      copying      00:00:04      about 00:01:25 left',
      'schema   done  1,204 objects',
      'data     █░░░░░░░░░░░░░░░░░░░░░░░░░░░    5 %    512 MB of 11.1 GB    128 MB/s    0 of 4 tables    1 job',
      'indexes  ░░░░░░░░░░░░░░░░░░░░░░░░░░░░    0 %    0 of 640    1 job',
      '  public.orders   part 1 of 12   5 %   1,200,000 rows/min',
      '  index public.orders_customer_idx    building: loading tuples  44 %',
      'source keeps 3.20 GB of WAL for us; room for 61.0 GB (max_slot_wal_keep_size)',
    ]);
  });

  it('never writes a line wider than the terminal, whatever a table is called', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', maxLength: 80 }), fc.integer({ min: 20, max: 200 }), fc.boolean(), (name, width, paint) => {
        const job = sampleJob();
        job.send({ type: 'copy-part', table: { schema: 'public', name }, part: 0, status: 'started' });
        job.send({ type: 'table-state', table: { schema: name, name }, state: { name: 'paused', reason: name, lsn: null } });
        for (const line of renderProgress(job.status.read(), { width, now: job.clock.now, ...(paint ? { paint: ansi } : {}) })) {
          expect(displayWidth(line)).toBeLessThanOrEqual(width);
          expect(line).not.toMatch(/[\n\r]/);
        }
      }),
      { numRuns: 200 },
    );
  });

  it('counts what it does not list', () => {
    const job = sampleJob({ tables: 40 });
    for (const t of job.status.read().tables.map(({ schema, name }) => ({ schema, name }))) job.send({ type: 'copy-part', table: t, part: 0, status: 'started' });
    const lines = renderProgress(job.status.read(), { width: 100, now: job.clock.now, workLines: 3 });
    expect(lines).toContain('  and 37 more');
  });

  it('sums up in one line for logs', () => {
    const job = sampleJob();
    expect(progressSummary(job.status.read())).toBe('copying 0 %, 0 B of 11.1 GB, 0 of 4 tables, 0 of 640 indexes');
    startStreaming(job, 1);
    expect(progressSummary(job.status.read())).toContain('streaming lag 0 B (12 ms)');
    expect(progressSummary(job.status.read())).toContain('1 paused');
  });
});

describe('status', () => {
  it('says what streams, what is paused and what to do next', () => {
    const job = sampleJob();
    startStreaming(job, 1);
    job.status.read();
    job.clock.advance(10_000);
    job.send({ type: 'stream-progress', receivedLsn: '3A/9F21C0E8', appliedLsn: '3A/9F21C0E8', sourceLsn: '3A/9F21C0E8', lagBytes: 0, lagMs: 12, transactions: 200, rows: 36_800 });
    expect(renderStatus(job.status.read(), { now: job.clock.now, running: true })).toEqual([
      'shop: old.example → new.example   streaming since 02:14:10',
      'lag 0 B (12 ms)   1,840 rows/s   target has everything up to 3A/9F21C0E8',
      '3 tables streaming, 1 paused:',
      '  public.orders  paused at 3A/9E00F1B8: duplicate key (invoice_no)=(2024-118) violates invoices_invoice_no_key on the target',
      '                 pgweave table public.orders --retry | --skip-transaction | --copy-again',
      'source keeps 3.20 GB of WAL for us; room for 61.0 GB (max_slot_wal_keep_size)',
      'Next: settle the paused table, then pgweave verify, then pgweave switchover.',
    ]);
  });

  it('says when it was written and that nothing runs after a crash', () => {
    const job = sampleJob({ job: 'nightly' });
    const written = job.status.read();
    const lines = renderStatus(written, { now: job.clock.now + 3_600_000, running: false });
    expect(lines[1]).toBe('Nothing runs now. This was written at 02:00:00 UTC, 1 h 0 min ago.');
    expect(lines.at(-1)).toBe('Go on with the same command: pgweave clone --job nightly …');
    expect(lines.join('\n')).not.toContain('since');
  });

  it('quotes a table for the shell and tells the way back after a switchover', () => {
    const job = sampleJob();
    startStreaming(job);
    job.send({ type: 'table-state', table: { schema: 'public', name: "It's" }, state: { name: 'paused', reason: 'no', lsn: null } });
    expect(renderStatus(job.status.read(), { now: job.clock.now, running: true }).join('\n')).toContain(`pgweave table 'public."It'\\''s"' --retry`);
    job.send({ type: 'way-back', open: true, slot: 'pgweave_default_reverse' }, { type: 'phase', phase: 'switched-over' });
    expect(renderStatus(job.status.read(), { now: job.clock.now, running: true }).at(-1)).toBe('Point the application at new.example:5432/shop. To go back: pgweave switchover --back');
    job.send({ type: 'table-state', table: { schema: 'public', name: "It's" }, state: { name: 'streaming' } }, { type: 'slot-health', slot: 'pgweave_default_reverse', walStatus: 'reserved', retainedBytes: 0, safeBytes: null }, { type: 'phase', phase: 'streaming' });
    expect(renderStatus(job.status.read(), { now: job.clock.now, running: true }).at(-1)).toBe('The way back is open. To return: pgweave switchover --back. To leave it for good: pgweave cleanup');
  });

  it('holds no secret that came in through an event', () => {
    rememberSecret('hunter2hunter2');
    const job = sampleJob();
    job.send(
      { type: 'log', level: 'error', message: 'postgres://app:hunter2hunter2@old/shop' }, { type: 'warning', code: 'x', message: 'password=hunter2hunter2', hint: 'hunter2hunter2' },
      { type: 'step', name: 's', status: 'ok', detail: 'hunter2hunter2', elapsedMs: 1 }, { type: 'phase', phase: 'failed', detail: 'hunter2hunter2' },
      { type: 'table-state', table: orders, state: { name: 'paused', reason: 'hunter2hunter2', lsn: null } },
    );
    job.status.fail({ code: 'x', message: 'hunter2hunter2', hint: 'hunter2hunter2' });
    expect(JSON.stringify(job.status.read())).not.toContain('hunter2');
  });
});

describe('live view', () => {
  it('redraws in place, keeps lines above, and leaves the last picture', () => {
    const terminal = new FakeTerminal();
    const job = sampleJob();
    const view = new LiveView(terminal, () => job.status.read(), job.clock.read);
    view.start();
    const height = terminal.screen.length;
    view.draw();
    view.draw();
    expect(terminal.screen).toHaveLength(height);
    view.writeAbove('warn: look here');
    expect(terminal.screen).toHaveLength(height + 1);
    expect(terminal.screen[0]).toBe('warn: look here');
    view.stop();
    const writes = terminal.writes;
    view.stop();
    expect(terminal.writes).toBe(writes);
    expect(terminal.screen).toHaveLength(height + 1);
  });

  it('fits a small terminal', () => {
    const terminal = new FakeTerminal();
    terminal.columns = 24;
    terminal.rows = 6;
    const job = sampleJob({ tables: 50 });
    for (const t of job.status.read().tables.map(({ schema, name }) => ({ schema, name }))) job.send({ type: 'copy-part', table: t, part: 0, status: 'started' });
    const view = new LiveView(terminal, () => job.status.read(), job.clock.read);
    view.draw();
    expect(terminal.screen.length).toBeLessThanOrEqual(5);
    for (const line of terminal.screen) expect(displayWidth(line)).toBeLessThan(24);
  });
});

describe('layout', () => {
  it('measures and cuts by columns', () => {
    expect(displayWidth('日本')).toBe(4);
    expect(displayWidth('é')).toBe(1);
    expect(cut('日本語', 5)).toBe('日本…');
    expect(column('ab', 4, 'right')).toBe('  ab');
    expect(visible('a\nb\u001b[31m')).toBe('a·b␛[31m');
    expect(bar(0.001, 10)).toBe('█░░░░░░░░░');
    expect(bar(0.999, 10)).toBe('█████████░');
    expect(bar(Number.NaN, 4)).toBe('░░░░');
  });
});

describe('log lines', () => {
  it('warns about a paused table and keeps counters silent', () => {
    expect(logEntry({ type: 'table-state', table: orders, state: { name: 'paused', reason: 'why', lsn: '0/1' } })).toMatchObject({ level: 'warn', message: 'public.orders paused at 0/1: why' });
    expect(logEntry({ type: 'copy-progress', table: orders, part: 0, bytes: 1, rows: 1 })).toBeNull();
    expect(logEntry({ type: 'counter', name: 'batches', by: 1 })).toBeNull();
  });
});
