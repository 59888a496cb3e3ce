import { describe, expect, it } from 'vitest';
import { sampleJob, startStreaming } from '../../test/support/sample-job.ts';
import type { JobSnapshot } from '../../src/core/snapshot.ts';
import type { History } from '../../src/server/history.ts';
import type { JobView } from '../../src/server/messages.ts';
import { copyEstimate, countTables, jobSteps, longestCopies, nextAction, slotWord, tableWord } from './facts.ts';

const viewOf = (snapshot: JobSnapshot, over: Partial<JobView['state']> = {}): JobView => {
  const { tables, log, ...summary } = structuredClone(snapshot);
  return { feed: 'f', seq: 1, summary, tables, log, state: { mode: 'job', running: true, note: null, version: '0', canAct: true, switchover: { status: 'idle', error: null }, ...over } };
};

describe('the way of a job', () => {
  it('says how long each part took and where it is', () => {
    const job = sampleJob();
    job.clock.advance(60_000);
    job.send({ type: 'phase', phase: 'indexes' }, { type: 'index', table: { schema: 'public', name: 'orders' }, index: 'i', status: 'done' });
    const steps = jobSteps(viewOf(job.status.read()).summary);
    expect(steps.map((s) => [s.name, s.status, s.detail])).toEqual([
      ['Prepare', 'done', 'Took 0 ms'], ['Schema', 'done', 'Took 0 ms'], ['Copy', 'done', 'Took 60.0 s'], ['Indexes', 'now', '1 of 640'], ['Streaming', 'todo', ''],
      ['Switchover', 'todo', 'Waits for you'], ['Done', 'todo', ''],
    ]);
  });

  it('says where it failed, and what was no part of it', () => {
    const job = sampleJob();
    job.send({ type: 'phase', phase: 'failed' });
    expect(jobSteps(viewOf(job.status.read()).summary)[2]).toMatchObject({ name: 'Copy', status: 'failed', detail: 'Failed here' });
    const plain = sampleJob();
    plain.send({ type: 'phase', phase: 'done' });
    expect(jobSteps(viewOf(plain.status.read()).summary).slice(3)).toMatchObject([{ detail: 'Not part of this run' }, { detail: 'Not part of this run' }, { detail: 'Not part of this run' }, { status: 'done', detail: 'Ended' }]);
  });
});

describe('the next action', () => {
  const lead = (view: JobView) => nextAction(view).lead;
  it('goes from what is worst to what can wait', () => {
    const job = sampleJob();
    expect(lead(viewOf(job.status.read()))).toBe('Nothing needs you now');
    startStreaming(job, 2);
    expect(nextAction(viewOf(job.status.read()))).toMatchObject({ lead: 'Decide what to do with 2 paused tables', button: { href: '#/tables?state=paused' } });
    expect(lead(viewOf(job.status.read(), { running: false, note: 'gone' }))).toBe('Nothing runs');
    for (const t of job.status.read().tables.map(({ schema, name }) => ({ schema, name }))) job.send({ type: 'table-state', table: t, state: { name: 'streaming' } });
    expect(lead(viewOf(job.status.read()))).toBe('Verify, then switch over');
    job.send({ type: 'verified', tables: 4, rows: 10, differing: 0, lsn: '0/1' });
    expect(lead(viewOf(job.status.read()))).toBe('Switch over when it suits');
    job.send({ type: 'phase', phase: 'paused' });
    expect(nextAction(viewOf(job.status.read())).button).toEqual({ label: 'Resume', action: 'resume' });
    expect(nextAction(viewOf(job.status.read(), { canAct: false })).button).toBeNull();
    job.send({ type: 'way-back', open: true, slot: 's' }, { type: 'phase', phase: 'switched-over' });
    expect(nextAction(viewOf(job.status.read()))).toMatchObject({ lead: 'Point the application at new.example', text: 'The way back is open: old.example follows.' });
    job.status.fail({ code: 'x', message: 'disk full', hint: 'Make room.' });
    job.send({ type: 'phase', phase: 'failed' });
    expect(nextAction(viewOf(job.status.read()))).toMatchObject({ lead: 'The job failed', text: 'Make room.', error: 'disk full' });
  });
});

describe('numbers', () => {
  it('gives a range for the copy only from a minute of rates on', () => {
    const job = sampleJob();
    job.status.read();
    job.clock.advance(4000);
    job.send({ type: 'copy-progress', table: { schema: 'public', name: 'orders' }, part: 0, bytes: 512 * 1024 ** 2, rows: 1 });
    const { summary } = viewOf(job.status.read());
    const history = (n: number): History => ({
      range: '15m', stepSeconds: 1, at: [], events: [],
      series: { lagMs: [], lagBytes: [], copyBytesPerSecond: Array.from({ length: n }, (_, i) => (i % 2 === 0 ? 64 : 128) * 1024 ** 2), appliedRowsPerSecond: [], retainedBytes: [], bytesDone: [] },
    });
    expect(copyEstimate(summary, history(10))).toEqual({ text: '84.7 s', range: null, basis: 'At 128 MB/s, the rate of the last 10 s.' });
    expect(copyEstimate(summary, history(100))!.range).toBe('Likely 84.7 s to 2 min 49 s, at the rates of the last 100.0 s');
  });

  it('says how well a slot is', () => {
    const slot = { slot: 's', walStatus: 'reserved', retainedBytes: 10, safeBytes: 90 };
    expect(slotWord(slot).word).toBe('OK');
    expect(slotWord({ ...slot, safeBytes: 5 }).word).toBe('Watch');
    expect(slotWord({ ...slot, walStatus: 'unreserved' }).word).toBe('In danger');
    expect(slotWord({ ...slot, walStatus: 'lost' }).word).toBe('Lost');
    expect(slotWord({ ...slot, safeBytes: null }).why).toContain('No limit');
  });

  it('counts tables and finds the longest copies', () => {
    const job = sampleJob({ tables: 6 });
    for (const name of ['orders', 'events']) job.send({ type: 'copy-part', table: { schema: 'public', name }, part: 0, status: 'started' });
    job.send({ type: 'index', table: { schema: 'public', name: 'customers' }, index: 'i', status: 'started' });
    const { tables } = viewOf(job.status.read());
    expect(countTables(tables)).toEqual({ all: 6, paused: 0, copying: 2, indexes: 1, pending: 4, copied: 0, streaming: 0 });
    expect(longestCopies(tables, 5).map((t) => t.name)).toEqual(['orders', 'events']);
    expect(tableWord(tables[0]!).word).toBe('Copying 0 %');
  });
});
