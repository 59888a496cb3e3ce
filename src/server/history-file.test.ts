import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { sampleJob, startStreaming } from '../../test/support/sample-job.ts';
import { FolderControl } from './folder-control.ts';
import { HistoryKeeper, HistoryReader, historyFilePath, readHistoryFile } from './history-file.ts';
import { HistoryRecorder, historyRanges, type KeptHistory } from './history.ts';
import { ownJob } from './job-control.ts';
import { RemoteControl } from './remote-control.ts';
import { startServer } from './server.ts';

const start = Date.parse('2026-03-01T12:00:00Z');

function recorded(seconds: number, from = start): HistoryRecorder {
  const job = sampleJob();
  startStreaming(job);
  const recorder = new HistoryRecorder();
  for (let i = 0; i < seconds; i += 1) {
    job.send({ type: 'stream-progress', receivedLsn: '0/0', appliedLsn: '0/0', sourceLsn: '0/0', lagBytes: 1, lagMs: i, transactions: 1, rows: 1 });
    recorder.record(job.status.read(), true, from + i * 1000);
  }
  return recorder;
}

const copied = (kept: KeptHistory) => JSON.parse(JSON.stringify(kept)) as KeptHistory;

describe('kept history', () => {
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'pgweave-history-'));
  });
  afterEach(() => rm(dir, { recursive: true, force: true }));

  it('goes on where an earlier process ended, with a gap between', () => {
    const before = recorded(30);
    const kept = copied(before.keep('default'));
    const after = new HistoryRecorder();
    after.restore(kept);
    const job = sampleJob();
    startStreaming(job);
    job.send({ type: 'stream-progress', receivedLsn: '0/0', appliedLsn: '0/0', sourceLsn: '0/0', lagBytes: 1, lagMs: 77, transactions: 1, rows: 1 });
    for (let i = 0; i < 3; i += 1) after.record(job.status.read(), true, start + (60 + i) * 1000);
    const { at, series } = after.read('15m');
    expect(at.map((t) => t - start / 1000)).toEqual([...Array.from({ length: 31 }, (_, i) => i), 60, 61, 62]);
    expect(series.lagMs.slice(28)).toEqual([28, 29, null, 77, 77, 77]);
    expect(after.read('1h').series.lagMs).toEqual([9, 19, 29, null, 77]);
    // Phases that were noted are not noted again.
    expect(after.read('all').events.length).toBeGreaterThanOrEqual(before.read('all').events.length);
    // A step that both had a part in is one step, and steps stay in order.
    const soon = new HistoryRecorder();
    soon.restore(kept);
    for (let i = 0; i < 3; i += 1) soon.record(job.status.read(), true, start + (32 + i) * 1000);
    for (const range of historyRanges) expect(soon.read(range).at).toEqual([...new Set(soon.read(range).at)].sort((a, b) => a - b));
    // A short range shows nothing of a day ago.
    const late = new HistoryRecorder();
    late.restore(kept);
    late.record(job.status.read(), true, start + 86_400_000);
    expect(late.read('15m').at).toEqual([start / 1000 + 86_400]);
    expect(late.read('all').at.length).toBeGreaterThan(1);
  });

  it('is written whole at the end, read again, and shown by a server on the folder', async () => {
    const job = sampleJob();
    startStreaming(job);
    const errors: unknown[] = [];
    const keeper = await HistoryKeeper.open(dir, 'default', () => job.status.read(), (error) => errors.push(error));
    keeper.recorder.restore(copied(recorded(20, Date.now() - 60_000).keep('default')));
    await keeper[Symbol.asyncDispose]();
    expect(await readdir(dir)).toEqual(['history.json']);
    expect((await readHistoryFile(dir, 'default'))!.tiers['15m'].at.length).toBeGreaterThan(20);
    expect(await readHistoryFile(dir, 'another')).toBeNull();
    await using again = await HistoryKeeper.open(dir, 'default', () => job.status.read(), (error) => errors.push(error));
    expect(again.recorder.read('15m').series.lagMs.slice(0, 3)).toEqual([0, 1, 2]);
    expect(errors).toEqual([]);

    using folder = await FolderControl.open(dir, 'default');
    await using server = await startServer({ control: folder, port: 0 });
    await using remote = await RemoteControl.connect({ url: server.url });
    expect((await remote.history('15m')).series.lagMs.slice(0, 3)).toEqual([0, 1, 2]);
    expect((await (await fetch(`${server.url}/api/v1/history?range=15m`)).json() as { series: { lagMs: number[] } }).series.lagMs.slice(0, 3)).toEqual([0, 1, 2]);
  });

  it('is what the job\'s own server answers from its first request on', async () => {
    const job = sampleJob();
    const kept = recorded(5);
    const control = { ...ownJob(() => job.status.read(), {}, null), history: (range: (typeof historyRanges)[number]) => Promise.resolve(kept.read(range)) };
    await using server = await startServer({ control, port: 0 });
    expect((await (await fetch(`${server.url}/api/v1/history?range=15m`)).json() as { series: { lagMs: number[] } }).series.lagMs).toEqual([0, 1, 2, 3, 4]);
  });

  it.each(['{', '{"format": 1}', JSON.stringify({ ...recorded(3).keep('default'), tiers: {} })])('begins anew where the file is damaged, and says so: %.20s', async (text) => {
    await writeFile(historyFilePath(dir), text);
    const job = sampleJob();
    const errors: unknown[] = [];
    await using keeper = await HistoryKeeper.open(dir, 'default', () => job.status.read(), (error) => errors.push(error));
    expect(errors).toMatchObject([{ code: 'history-unreadable' }]);
    expect(keeper.recorder.read('all').at).toEqual([]);
    expect((await new HistoryReader(dir, 'default').read('all')).at).toEqual([]);
  });
});
