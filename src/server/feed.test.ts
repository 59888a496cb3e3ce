import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FakeClock, sampleJob, startStreaming } from '../../test/support/sample-job.ts';
import type { JobEvent } from '../core/events.ts';
import type { JobStatus } from '../core/snapshot.ts';
import { FeedSockets, type FeedSocket } from './feed-socket.ts';
import { HistoryRecorder } from './history.ts';
import { applyMessage, snapshotOf, type FeedMessage, type JobState, type JobView } from './messages.ts';
import { SnapshotFeed } from './snapshot-feed.ts';
import { WebhookNews } from './webhook.ts';

const state = (): JobState => ({ mode: 'job', running: true, note: null, version: '0', canAct: true, switchover: { status: 'idle', error: null } });

class FakeSocket implements FeedSocket {
  bufferedAmount = 0;
  readonly sent: string[] = [];
  closed: number | null = null;
  pings = 0;
  readonly #listeners = new Map<string, () => void>();
  send(text: string): void {
    this.sent.push(text);
  }
  ping(): void {
    this.pings += 1;
  }
  close(code: number): void {
    this.closed = code;
    this.hear('close');
  }
  terminate(): void {
    this.closed = 1006;
    this.hear('close');
  }
  on(event: string, listener: () => void): void {
    this.#listeners.set(event, listener);
  }
  hear(event: string): void {
    this.#listeners.get(event)?.();
  }
}

const ref = fc.record({ schema: fc.constantFrom('public', 'billing'), name: fc.constantFrom('orders', 'events', 'invoices', 'new_one', 'another') });
const anEvent: fc.Arbitrary<JobEvent> = fc.oneof(
  ref.map((table): JobEvent => ({ type: 'table-changes', table, inserts: 1, updates: 2, deletes: 0 })),
  ref.map((table): JobEvent => ({ type: 'copy-progress', table, part: 0, bytes: 10, rows: 1 })),
  ref.map((table): JobEvent => ({ type: 'table-state', table, state: { name: 'paused', reason: 'r', lsn: null } })),
  ref.map((table): JobEvent => ({ type: 'table-state', table, state: { name: 'copied', lsn: '0/1' } })),
  ref.map((table): JobEvent => ({ type: 'table-removed', table })),
  ref.map((table): JobEvent => ({ type: 'index', table, index: 'i', status: 'progress', percent: 4 })),
  fc.constantFrom<JobEvent>(
    { type: 'phase', phase: 'copying' }, { type: 'phase', phase: 'streaming' }, { type: 'log', level: 'info', message: 'x' }, { type: 'counter', name: 'retries', by: 1 },
    { type: 'writes', refused: true }, { type: 'writes', refused: false }, { type: 'warning', code: 'w', message: 'm' }, { type: 'step', name: 's', status: 'ok', detail: '', elapsedMs: 1 },
  ),
);

describe('feed', () => {
  it('brings every listener to the same state, however seldom it listens', () => {
    fc.assert(
      fc.property(fc.array(fc.array(anEvent, { maxLength: 6 }), { maxLength: 25 }), fc.integer({ min: 1, max: 5 }), (rounds, every) => {
        const { status } = sampleJob({ tables: 3 });
        const feed = new SnapshotFeed(() => status.read(), state);
        let view: JobView | null = null;
        for (const [i, events] of rounds.entries()) {
          for (const event of events) status.emit(event);
          feed.refresh();
          if (i % every !== 0) continue;
          const text = feed.since(view?.seq ?? 0);
          if (text !== null) view = applyMessage(view, JSON.parse(text) as FeedMessage);
          const { tables, ...rest } = JSON.parse(JSON.stringify(status.read())) as ReturnType<JobStatus['read']>;
          const { tables: shown, ...shownRest } = snapshotOf(view!);
          expect(shownRest).toEqual(rest);
          expect(new Map(shown.map((t) => [`${t.schema}.${t.name}`, t]))).toEqual(new Map(tables.map((t) => [`${t.schema}.${t.name}`, t])));
        }
      }),
      { numRuns: 150 },
    );
  });

  it('sends what changed and no more', () => {
    const job = sampleJob({ tables: 5000 });
    const feed = new SnapshotFeed(() => job.status.read(), state);
    feed.refresh();
    const whole = feed.since(0)!;
    const { seq } = feed;
    expect(feed.since(seq)).toBeNull();
    job.send({ type: 'table-changes', table: { schema: 'public', name: 'orders' }, inserts: 1, updates: 0, deletes: 0 });
    feed.refresh();
    const delta = feed.since(seq)!;
    expect(delta.length).toBeLessThan(1000);
    expect(whole.length).toBeGreaterThan(1_000_000);
  });

  it('makes a message once for all that ask from the same number', () => {
    const job = sampleJob({ tables: 10 });
    const feed = new SnapshotFeed(() => job.status.read(), state);
    feed.refresh();
    expect(feed.since(0)).toBe(feed.since(0));
  });

  it('starts anew for another run of the job', () => {
    let job = sampleJob({ tables: 3 });
    const feed = new SnapshotFeed(() => job.status.read(), state);
    feed.refresh();
    const { seq } = feed;
    const clock = new FakeClock();
    clock.advance(1000);
    job = sampleJob({ tables: 2, clock });
    feed.refresh();
    const message = JSON.parse(feed.since(seq)!) as FeedMessage;
    expect(message.type).toBe('snapshot');
    expect(message.tables).toHaveLength(2);
  });

  it('does not put a message on a view it does not fit', () => {
    const job = sampleJob({ tables: 3 });
    const feed = new SnapshotFeed(() => job.status.read(), state);
    feed.refresh();
    const view = applyMessage(null, JSON.parse(feed.since(0)!) as FeedMessage)!;
    const delta: FeedMessage = { type: 'delta', feed: view.feed, seq: view.seq + 2, since: view.seq + 1, writtenAt: '', summary: {}, tables: [], log: [] };
    expect(applyMessage(view, delta)).toBeNull();
    expect(applyMessage(view, { ...delta, since: view.seq, feed: 'other' })).toBeNull();
    expect(applyMessage(null, delta)).toBeNull();
  });
});

describe('sockets', () => {
  it('send a slow client nothing until it is ready, and then one message with all it missed', () => {
    const job = sampleJob({ tables: 4 });
    const feed = new SnapshotFeed(() => job.status.read(), state);
    const sockets = new FeedSockets(feed);
    const slow = new FakeSocket();
    const quick = new FakeSocket();
    sockets.add(slow);
    sockets.add(quick);
    slow.bufferedAmount = 1;
    for (let i = 0; i < 50; i += 1) {
      job.send({ type: 'table-changes', table: { schema: 'public', name: 'orders' }, inserts: 1, updates: 0, deletes: 0 });
      job.send({ type: 'log', level: 'info', message: `line ${i}` });
      feed.refresh();
      sockets.push();
    }
    expect(slow.sent).toHaveLength(1);
    expect(quick.sent).toHaveLength(51);
    slow.bufferedAmount = 0;
    sockets.push();
    expect(slow.sent).toHaveLength(2);
    const views = [slow, quick].map((socket) => socket.sent.reduce<JobView | null>((view, text) => applyMessage(view, JSON.parse(text) as FeedMessage), null)!);
    expect(views[0]!.tables.find((t) => t.name === 'orders')!.inserts).toBe(50);
    expect(views[0]).toEqual(views[1]);
  });

  it('send away who talks, who is silent, and who is one too many', () => {
    const clock = new FakeClock();
    const job = sampleJob();
    const sockets = new FeedSockets(new SnapshotFeed(() => job.status.read(), state), clock.read);
    const talker = new FakeSocket();
    const silent = new FakeSocket();
    const healthy = new FakeSocket();
    for (const socket of [talker, silent, healthy]) sockets.add(socket);
    talker.hear('message');
    expect(talker.closed).toBe(1008);
    expect(sockets.size).toBe(2);
    for (let i = 0; i < 10; i += 1) {
      clock.advance(5000);
      healthy.hear('pong');
      sockets.checkLiveness();
    }
    expect(silent.closed).toBe(1006);
    expect(healthy.closed).toBeNull();
    expect(healthy.pings).toBe(3);
    const many = Array.from({ length: 120 }, () => new FakeSocket());
    for (const socket of many) sockets.add(socket);
    expect(sockets.size).toBe(100);
    expect(many.at(-1)!.closed).toBe(1013);
    sockets.closeAll();
    expect(sockets.size).toBe(0);
  });
});

describe('history', () => {
  it('keeps a second\'s step, the highest lag and the mean rate of coarser ones, and gaps', () => {
    const job = sampleJob();
    startStreaming(job);
    const history = new HistoryRecorder();
    const lag = (lagMs: number) => job.send({ type: 'stream-progress', receivedLsn: '0/0', appliedLsn: '0/0', sourceLsn: '0/0', lagBytes: 1, lagMs, transactions: 1, rows: 1 });
    const start = Date.parse('2026-03-01T12:00:00Z');
    for (let i = 0; i < 30; i += 1) {
      lag(i);
      history.record(job.status.read(), i < 20, start + i * 1000);
    }
    const fine = history.read('15m');
    expect(fine.at).toHaveLength(30);
    expect(fine.series.lagMs.slice(0, 3)).toEqual([0, 1, 2]);
    expect(fine.series.lagMs.slice(20)).toEqual(Array.from({ length: 10 }, () => null));
    const coarse = history.read('1h');
    expect(coarse.series.lagMs).toEqual([9, 19, null]);
    expect(coarse.at.map((t) => t - start / 1000)).toEqual([0, 10, 20]);
  });

  it('stays within its bounds', () => {
    const job = sampleJob();
    const history = new HistoryRecorder();
    for (let i = 0; i < 4000; i += 1) history.record(job.status.read(), true, i * 1000);
    expect(history.read('15m').at.length).toBeLessThanOrEqual(901);
    expect(history.read('1h').at.length).toBeLessThanOrEqual(361);
  });
});

describe('webhook news', () => {
  it('tells phases, paused tables, failure and lag once each', () => {
    const job = sampleJob();
    const news = new WebhookNews({ lagLimitMs: 5000 });
    const told = () => news.since(job.status.read()).map((m) => m.event);
    expect(told()).toEqual([]);
    job.clock.advance(1000);
    startStreaming(job, 1);
    expect(told()).toEqual(['phase', 'table-paused']);
    expect(told()).toEqual([]);
    const lag = (lagMs: number) => job.send({ type: 'stream-progress', receivedLsn: '0/0', appliedLsn: '0/0', sourceLsn: '0/0', lagBytes: 1, lagMs, transactions: 1, rows: 1 });
    lag(6000);
    expect(told()).toEqual(['lag-over-limit']);
    lag(4500);
    expect(told()).toEqual([]);
    lag(3000);
    expect(told()).toEqual(['lag-under-limit']);
    job.clock.advance(1000);
    job.status.fail({ code: 'x', message: 'the disk is full' });
    job.send({ type: 'phase', phase: 'failed' });
    const last = news.since(job.status.read());
    expect(last).toHaveLength(1);
    expect(last[0]).toMatchObject({ event: 'failed', text: 'pgweave job default: failed: the disk is full' });
  });
});
