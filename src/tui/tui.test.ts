import { EventEmitter } from 'node:events';
import { PassThrough } from 'node:stream';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { sampleJob, startStreaming } from '../../test/support/sample-job.ts';
import { displayWidth } from '../cli/render/layout.ts';
import { PgweaveError } from '../core/errors.ts';
import { ownJob, type JobActions } from '../server/job-control.ts';
import { tableLine } from './lines.ts';
import { loadDashboard } from './load.ts';
import { firstState, press, type Key, type KeyContext, type TuiState } from './model.ts';

const context: KeyContext = { tables: 100, room: 10, canAct: true, note: null, word: 'shop', quitStopsJob: false };
const type = (text: string): Key[] => Array.from(text, (input) => ({ input, name: null }));
const key = (name: Key['name']): Key => ({ input: '', name });
const pressAll = (keys: readonly Key[], over: Partial<KeyContext> = {}, from: TuiState = firstState) =>
  keys.reduce<{ state: TuiState; commands: string[] }>(({ state, commands }, k) => {
    const next = press(state, k, { ...context, ...over });
    return { state: next.state, commands: next.command ? [...commands, next.command] : commands };
  }, { state: from, commands: [] });

describe('keys', () => {
  it('scroll within the list', () => {
    expect(pressAll([key('up')]).state.top).toBe(0);
    expect(pressAll([key('down'), key('down'), key('page-down')]).state.top).toBe(12);
    expect(pressAll([key('end'), key('down')]).state.top).toBe(90);
    expect(pressAll([key('end'), key('home')]).state.top).toBe(0);
    expect(pressAll([key('down')], { tables: 3 }).state.top).toBe(0);
  });

  it('filter as they are typed, keep it with Enter, clear it with Esc', () => {
    expect(pressAll([...type('/ord'), key('backspace'), ...type('q'), key('enter')]).state).toMatchObject({ mode: 'view', filter: 'orq' });
    expect(pressAll([...type('/ord'), key('escape')]).state).toMatchObject({ mode: 'view', filter: '' });
    // What is typed into the filter is no command.
    expect(pressAll(type('/qsp')).commands).toEqual([]);
    expect(pressAll([...type('/a👍'), key('backspace')]).state.filter).toBe('a');
  });

  it('pause, resume and quit', () => {
    expect(pressAll(type('prq')).commands).toEqual(['pause', 'resume', 'quit']);
    expect(pressAll(type('q'), { quitStopsJob: true }).commands).toEqual([]);
    expect(pressAll(type('qn'), { quitStopsJob: true }).commands).toEqual([]);
    expect(pressAll(type('qy'), { quitStopsJob: true }).commands).toEqual(['quit']);
    expect(pressAll([...type('/x'), key('interrupt')]).commands).toEqual(['quit']);
  });

  it('switch over only when the database\'s name is typed', () => {
    expect(pressAll([...type('sshop'), key('enter')]).commands).toEqual(['switchover']);
    expect(pressAll([...type('sshup'), key('enter')])).toMatchObject({ commands: [], state: { mode: 'view', message: { tone: 'warn' } } });
    expect(pressAll([...type('sshop'), key('escape'), key('enter')]).commands).toEqual([]);
  });

  it('say why nothing can be asked for', () => {
    const { state, commands } = pressAll(type('p'), { canAct: false, note: 'Nothing runs now.' });
    expect(commands).toEqual([]);
    expect(state.message).toEqual({ text: 'Nothing runs now.', tone: 'warn' });
    expect(pressAll(type('s'), { canAct: false }).state.mode).toBe('view');
  });
});

/** A terminal for Ink: keeps the last picture, takes keys. */
class FakeTerminal extends EventEmitter {
  readonly isTTY = true;
  columns: number;
  rows: number;
  last = '';
  constructor(columns: number, rows: number) {
    super();
    this.columns = columns;
    this.rows = rows;
  }
  readonly write = (text: string): boolean => {
    // Ink clears what it drew and draws anew in one write; cursor codes alone are no picture.
    if (text.includes('─')) this.last = text;
    return true;
  };
  get lines(): string[] {
    // oxlint-disable-next-line no-control-regex -- a terminal's control codes
    return this.last.replace(/\u001b\[[0-9;?]*[A-Za-z]/g, '').split('\n');
  }
}

class FakeInput extends PassThrough {
  readonly isTTY = true;
  setRawMode(): this {
    return this;
  }
  ref(): this {
    return this;
  }
  unref(): this {
    return this;
  }
}

const { mountDashboard } = await loadDashboard();
const open: (() => void)[] = [];
afterEach(() => {
  for (const close of open.splice(0)) close();
});

function show(options: { columns?: number; rows?: number; actions?: Partial<JobActions> | null; job?: ReturnType<typeof sampleJob>; quitStopsJob?: boolean } = {}) {
  const job = options.job ?? sampleJob({ tables: 60 });
  const asked: string[] = [];
  const actions: JobActions = {
    pause: async () => void asked.push('pause'), resume: async () => void asked.push('resume'), table: async () => {},
    switchover: async (_request, signal) => {
      asked.push('switchover');
      await new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => reject(new PgweaveError('switchover-stopped', 'stopped on request')));
      });
    },
    ...options.actions,
  };
  const terminal = new FakeTerminal(options.columns ?? 120, options.rows ?? 30);
  const input = new FakeInput();
  const control = ownJob(() => job.status.read(), {}, options.actions === null ? null : actions);
  const app = mountDashboard({ control, quitStopsJob: options.quitStopsJob ?? false, onQuit: () => asked.push('quit'), now: job.clock.read, everyMs: 20 }, {
    stdout: terminal as unknown as NodeJS.WriteStream, stdin: input as unknown as NodeJS.ReadStream,
  });
  open.push(() => app.unmount());
  const sees = (text: string | RegExp) => vi.waitFor(() => expect(terminal.lines.join('\n')).toMatch(text), { timeout: 15_000 });
  return { job, asked, terminal, press: (text: string) => input.write(text), sees };
}

describe('the terminal dashboard', () => {
  it('shows phase, bars, tables and log, and what is new', async () => {
    const screen = show();
    await screen.sees(/shop: old\.example → new\.example {3}copying/);
    expect(screen.terminal.lines.join('\n')).toMatch(/data +[█░]+ +0 %/);
    screen.job.send({ type: 'copy-part', table: { schema: 'public', name: 'orders' }, part: 0, status: 'started' }, { type: 'log', level: 'warn', message: 'look here' });
    screen.job.send({ type: 'copy-progress', table: { schema: 'public', name: 'orders' }, part: 0, bytes: 5 * 1024 ** 3, rows: 10 });
    await screen.sees(/public\.orders +copying +█+░+ +50 %/);
    await screen.sees(/look here/);
    expect(screen.terminal.lines.join('\n')).toMatch(/q quit/);
  });

  it('fits its terminal and follows when that is resized', async () => {
    const screen = show({ columns: 100, rows: 24 });
    await screen.sees(/Tables/);
    const fits = () => screen.terminal.lines.every((line) => displayWidth(line) <= screen.terminal.columns) && screen.terminal.lines.length <= screen.terminal.rows;
    expect(fits()).toBe(true);
    for (const [columns, rows] of [[60, 12], [200, 50]] as const) {
      Object.assign(screen.terminal, { columns, rows });
      screen.terminal.emit('resize');
      await screen.sees(new RegExp(`^─{${columns}}$`, 'm'));
      expect(fits()).toBe(true);
    }
  });

  it('scrolls and filters', async () => {
    const screen = show();
    await screen.sees(/1 to \d+ of 60/);
    screen.press('\u001b[B');
    await screen.sees(/2 to \d+ of 60/);
    screen.press('/');
    await screen.sees(/Filter:/);
    screen.press('invoices_');
    await screen.sees(/matching "invoices_": 7/);
    screen.press('\r');
    await screen.sees(/q quit/);
    expect(screen.asked).toEqual([]);
  });

  it('asks for pause and resume, and tells a refusal with what to do', async () => {
    const screen = show({ actions: { resume: () => Promise.reject(new PgweaveError('no', 'it is not paused', { hint: 'Nothing to do.' })) } });
    await screen.sees(/Tables/);
    screen.press('p');
    await screen.sees(/Pause was asked for/);
    expect(screen.asked).toEqual(['pause']);
    screen.press('r');
    await screen.sees(/it is not paused Nothing to do\./);
  });

  it('switches over after the name was typed, shows the steps, and stops on Esc', async () => {
    const job = sampleJob({ tables: 6 });
    startStreaming(job);
    const screen = show({ job });
    await screen.sees(/streaming/);
    screen.press('s');
    await screen.sees(/Type shop to switch over/);
    screen.press('shop');
    await screen.sees(/switch over: shop/);
    screen.press('\r');
    await vi.waitFor(() => expect(screen.asked).toEqual(['switchover']), { timeout: 15_000 });
    job.send({ type: 'phase', phase: 'switching-over' }, { type: 'step', name: 'marker in the WAL', status: 'ok', detail: '3A/A0113F40', elapsedMs: 94 });
    await screen.sees(/0\.094 +marker in the WAL +ok +3A\/A0113F40/);
    screen.press('\u001b');
    await screen.sees(/stopped on request/);
  });

  it('only looks where nothing can be done', async () => {
    const screen = show({ actions: null });
    await screen.sees(/Tables/);
    screen.press('p');
    await screen.sees(/Nothing can be asked for from here/);
    expect(screen.asked).toEqual([]);
  });

  it('leaves on q and on Ctrl-C, after asking where that ends the job', async () => {
    const watching = show();
    await watching.sees(/Tables/);
    watching.press('q');
    await vi.waitFor(() => expect(watching.asked).toEqual(['quit']), { timeout: 15_000 });
    const running = show({ quitStopsJob: true });
    await running.sees(/Tables/);
    running.press('q');
    await running.sees(/Stop the job\?/);
    running.press('y');
    await vi.waitFor(() => expect(running.asked).toEqual(['quit']), { timeout: 15_000 });
    running.press('\u0003');
    await vi.waitFor(() => expect(running.asked).toEqual(['quit', 'quit']), { timeout: 15_000 });
  });

  it('cannot be garbled by a table\'s name', () => {
    const job = sampleJob({ tables: 1 });
    job.send({ type: 'table-state', table: { schema: 'public', name: 'a\u001b[2Jb\nc' }, state: { name: 'streaming' } });
    const line = tableLine(job.status.read().tables[1]!, 100).map(([, text]) => text).join('');
    // oxlint-disable-next-line no-control-regex -- that there are none is the point
    expect(line).not.toMatch(/[\u0000-\u001f]/);
  });
});
