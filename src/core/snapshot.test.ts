import { describe, expect, it } from 'vitest';
import { sampleJob, startStreaming } from '../../test/support/sample-job.ts';
import { JobStatus } from './snapshot.ts';

const orders = { schema: 'public', name: 'orders' };

describe('a job\'s status', () => {
  it('keeps what happened in its log, each once, without what only goes on', () => {
    const status = new JobStatus('default', 'clone');
    const before = (n: number) => status.read().log.slice(n).map((l) => `${l.level} ${l.message}`);
    for (const done of [1, 2, 2]) status.emit({ type: 'schema-objects', done, total: 2 });
    status.emit({ type: 'phase', phase: 'copying' });
    status.emit({ type: 'phase', phase: 'copying' });
    status.emit({ type: 'table-state', table: orders, state: { name: 'streaming' } });
    status.emit({ type: 'copy-progress', table: orders, part: 0, bytes: 1, rows: 1 });
    status.emit({ type: 'table-state', table: orders, state: { name: 'paused', reason: 'duplicate key', lsn: '0/1' } });
    status.emit({ type: 'step', name: 'drained', status: 'running', detail: '', elapsedMs: 1 });
    status.emit({ type: 'step', name: 'drained', status: 'ok', detail: 'all of it', elapsedMs: 2 });
    status.emit({ type: 'warning', code: 'w', message: 'look' });
    status.emit({ type: 'log', level: 'debug', message: 'detail' });
    expect(before(0)).toEqual(['info schema done, 2 objects', 'info copying', 'warn public.orders paused at 0/1: duplicate key', 'info drained: ok, all of it', 'warn look', 'debug detail']);
    expect(status.read().log.map((l) => l.n)).toEqual([1, 2, 3, 4, 5, 6]);
  });

  it('begins a switchover\'s steps anew', () => {
    const job = sampleJob();
    job.send({ type: 'phase', phase: 'switching-over' }, { type: 'step', name: 'way back', status: 'ok', detail: '', elapsedMs: 1 }, { type: 'phase', phase: 'streaming' });
    expect(job.status.read().steps).toHaveLength(1);
    job.send({ type: 'phase', phase: 'switching-over' }, { type: 'step', name: 'checks', status: 'ok', detail: '', elapsedMs: 1 });
    expect(job.status.read().steps.map((s) => s.name)).toEqual(['checks']);
  });

  it('shows the sizes that an earlier run measured for tables that this one only follows', () => {
    const first = sampleJob({ tables: 3 });
    startStreaming(first);
    const before = structuredClone(first.status.read());
    const second = new JobStatus('default', 'follow');
    second.recall(before.tables);
    // Tables that left the job meanwhile do not come back.
    expect(second.read().tables).toEqual([]);
    for (const table of before.tables.slice(0, 2)) second.emit({ type: 'table-state', table, state: { name: 'streaming' } });
    const { tables, totals } = second.read();
    expect(tables.map((t) => [t.name, t.bytes, t.rows])).toEqual(before.tables.slice(0, 2).map((t) => [t.name, t.bytes, t.rows]));
    expect(totals.bytesDone).toBe(totals.bytes);
    expect(tables.map((t) => t.inserts)).toEqual([0, 0]);
  });
});
