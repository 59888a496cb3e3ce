import { describe, expect, it } from 'vitest';
import { sampleJob, startStreaming } from '../../test/support/sample-job.ts';
import type { JobView } from '../../src/server/messages.ts';
import { nextAction } from './facts.ts';
import { allChecks, knownChecks, refusedMs, sidesAfter, stageOf } from './switchover-facts.ts';

const viewOf = (job: ReturnType<typeof sampleJob>, switchover: JobView['state']['switchover'] = { status: 'idle', error: null }): JobView => {
  const { tables, log, ...summary } = structuredClone(job.status.read());
  return { feed: 'f', seq: 1, summary, tables, log, state: { mode: 'job', running: true, note: null, version: '0', canAct: true, switchover } };
};

describe('the switchover page', () => {
  it('knows its stage', () => {
    const job = sampleJob();
    startStreaming(job);
    expect(stageOf(viewOf(job))).toBe('before');
    expect(stageOf(viewOf(job, { status: 'stopped', error: null }))).toBe('stopped');
    job.send({ type: 'phase', phase: 'switching-over' });
    expect(stageOf(viewOf(job))).toBe('running');
    job.send({ type: 'phase', phase: 'switched-over' });
    expect(stageOf(viewOf(job, { status: 'done', error: null }))).toBe('done');
  });

  it('stays at the end of a switchover while the job streams back', () => {
    const job = sampleJob();
    startStreaming(job);
    const slot = (name: string) => job.send({ type: 'slot-health', slot: name, walStatus: 'reserved', retainedBytes: 0, safeBytes: null });
    slot('pgweave_default');
    job.send({ type: 'phase', phase: 'switching-over' }, { type: 'way-back', open: true, slot: 'pgweave_default_reverse' }, { type: 'phase', phase: 'switched-over' });
    const { source, target } = job.status.read();
    expect(sidesAfter(viewOf(job).summary)).toMatchObject({ primary: target, old: source, primaryName: 'new.example', oldName: 'old.example' });
    // The follower turned round: its source is the new primary.
    job.send({ type: 'phase', phase: 'streaming' }, { type: 'servers', source: target!, target: source! });
    slot('pgweave_default_reverse');
    expect(stageOf(viewOf(job))).toBe('done');
    expect(sidesAfter(viewOf(job).summary)).toMatchObject({ primary: target, old: source, primaryName: 'new.example', oldName: 'old.example' });
    expect(nextAction(viewOf(job)).lead).toBe(`Point the application at ${target!.host}`);
    job.send({ type: 'way-back', open: false, slot: 'pgweave_default_reverse' });
    expect(stageOf(viewOf(job))).toBe('before');
  });

  it('checks what the snapshot tells', () => {
    const job = sampleJob();
    expect(knownChecks(viewOf(job)).map((c) => c.status)).toEqual(['failed', 'warn', 'warn']);
    startStreaming(job, 1);
    expect(knownChecks(viewOf(job)).map((c) => [c.name, c.status])).toEqual([['The target follows', 'ok'], ['Lag', 'ok'], ['Tables', 'failed'], ['Rows compared', 'warn']]);
    job.send({ type: 'table-state', table: { schema: 'public', name: 'orders' }, state: { name: 'streaming' } }, { type: 'verified', tables: 4, rows: 9, differing: 0, lsn: null });
    expect(knownChecks(viewOf(job)).every((c) => c.status === 'ok')).toBe(true);
  });

  it('shows each check once, as the servers answered it', () => {
    const job = sampleJob();
    startStreaming(job);
    const checks = allChecks(knownChecks(viewOf(job)), [{ name: 'Tables', status: 'failed', detail: 'one is paused' }, { name: 'Sequences', status: 'ok', detail: '' }]);
    expect(checks.map((c) => c.name)).toEqual(['The target follows', 'Lag', 'Rows compared', 'Tables', 'Sequences']);
    expect(checks.find((c) => c.name === 'Tables')!.status).toBe('failed');
  });

  it('counts the time that writes are refused, also between two messages', () => {
    const job = sampleJob();
    expect(refusedMs(viewOf(job), 100)).toBeNull();
    job.send({ type: 'writes', refused: true });
    job.clock.advance(1000);
    expect(refusedMs(viewOf(job), 160)).toBe(1160);
    job.send({ type: 'writes', refused: false });
    job.clock.advance(5000);
    expect(refusedMs(viewOf(job), 160)).toBe(1000);
  });
});
