import { collectDefaultMetrics, Counter, Gauge, Registry } from 'prom-client';
import type { Phase, TableState } from '../core/events.ts';
import type { JobSnapshot } from '../core/snapshot.ts';
import { phaseWords } from '../core/words.ts';
import { packageVersion } from '../core/package-version.ts';
import type { JobControl } from './job-control.ts';

const phases = Object.keys(phaseWords) as Phase[];
const tableStates: readonly TableState['name'][] = ['pending', 'copying', 'copied', 'streaming', 'paused'];

/**
 * Prometheus metrics of a job, read from its snapshot at each scrape. Names follow https://prometheus.io/docs/practices/naming/: base units
 * (bytes, seconds), `_total` for what only grows. What is not measured has no sample rather than a zero.
 */
export function jobMetrics(control: JobControl): Registry {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry, prefix: 'pgweave_' });
  const labels = ['job'] as const;
  const read = readOnceATurn(control);

  const gauge = (name: string, help: string, value: (s: JobSnapshot) => number | null | undefined) => {
    registry.registerMetric(
      new Gauge({
        name, help, labelNames: labels, registers: [],
        collect() {
          this.reset();
          const s = read();
          const v = value(s);
          if (v !== null && v !== undefined && Number.isFinite(v)) this.set({ job: s.job }, v);
        },
      }),
    );
  };
  const counter = (name: string, help: string, value: (s: JobSnapshot) => number | null | undefined) => {
    registry.registerMetric(
      new Counter({
        name, help, labelNames: labels, registers: [],
        collect() {
          this.reset();
          const s = read();
          const v = value(s);
          if (v !== null && v !== undefined && v >= 0) this.inc({ job: s.job }, v);
        },
      }),
    );
  };
  const byTableState = (name: string, help: string, value: (t: JobSnapshot['tables'][number]) => number) => {
    registry.registerMetric(
      new Gauge({
        name, help, labelNames: ['job', 'state'], registers: [],
        collect() {
          this.reset();
          const s = read();
          const sums = new Map<string, number>(tableStates.map((state) => [state, 0]));
          for (const t of s.tables) sums.set(t.state.name, sums.get(t.state.name)! + value(t));
          for (const [state, sum] of sums) this.set({ job: s.job, state }, sum);
        },
      }),
    );
  };

  registry.registerMetric(
    new Gauge({
      name: 'pgweave_info', help: 'Version of pgweave and of the two servers; always 1.', labelNames: ['job', 'version', 'source_version', 'target_version'], registers: [],
      collect() {
        this.reset();
        const s = read();
        this.set({ job: s.job, version: packageVersion(), source_version: s.source?.version ?? '', target_version: s.target?.version ?? '' }, 1);
      },
    }),
  );
  registry.registerMetric(
    new Gauge({
      name: 'pgweave_phase', help: 'The phase that the job is in: 1 for that one, 0 for the others.', labelNames: ['job', 'phase'], registers: [],
      collect() {
        const s = read();
        for (const phase of phases) this.set({ job: s.job, phase }, phase === s.phase ? 1 : 0);
      },
    }),
  );
  gauge('pgweave_running', 'Whether a job runs: 1 or 0.', () => (control.state().running ? 1 : 0));
  gauge('pgweave_start_time_seconds', 'When the job was started, seconds since 1970.', (s) => Date.parse(s.startedAt) / 1000);
  gauge('pgweave_lag_bytes', 'WAL of the source that the target has not applied yet.', (s) => s.stream?.lagBytes);
  gauge('pgweave_lag_seconds', 'Time from commit on the source to commit on the target of the newest transaction applied.', (s) => (s.stream?.lagMs === null || !s.stream ? null : s.stream.lagMs / 1000));
  byTableState('pgweave_tables', 'Tables by state.', () => 1);
  byTableState('pgweave_table_bytes', 'Size in the source of the tables in each state.', (t) => t.bytes);
  byTableState('pgweave_table_rows_copied', 'Rows copied of the tables in each state.', (t) => t.rowsDone);
  gauge('pgweave_copy_bytes', 'Bytes of the source to copy.', (s) => s.totals.bytes);
  gauge('pgweave_copy_done_bytes', 'Bytes of the source that are copied.', (s) => s.totals.bytesDone);
  gauge('pgweave_copy_remaining_seconds', 'Time left of the copy at the measured rate.', (s) => (s.estimateMs === null ? null : s.estimateMs / 1000));
  gauge('pgweave_indexes', 'Indexes to build.', (s) => s.totals.indexes);
  gauge('pgweave_indexes_done', 'Indexes that are built.', (s) => s.totals.indexesDone);
  gauge('pgweave_slot_retained_bytes', 'WAL that the slot holds on the source.', (s) => s.slot?.retainedBytes);
  gauge('pgweave_slot_safe_bytes', 'WAL that can still be written before the slot is in danger; absent where there is no limit.', (s) => s.slot?.safeBytes);
  gauge('pgweave_slot_lost', 'Whether the source removed WAL that the slot still needed: 1 or 0.', (s) => (s.slot ? (s.slot.walStatus === 'lost' ? 1 : 0) : null));
  gauge('pgweave_spool_bytes', 'Received changes that wait on disk.', (s) => s.stream?.spoolBytes);
  counter('pgweave_applied_transactions_total', 'Source transactions applied since the job was started.', (s) => s.stream?.transactions);
  counter('pgweave_applied_rows_total', 'Row changes applied since the job was started.', (s) => s.stream?.rows);
  counter('pgweave_copied_rows_total', 'Rows copied since the job was started.', (s) => s.totals.rowsDone);
  counter('pgweave_batches_total', 'Target transactions that applied changes.', (s) => s.counters.batches);
  counter('pgweave_conflicts_total', 'Batches that had to be replayed in source order, or rows in conflict.', (s) => s.counters.conflicts);
  counter('pgweave_retries_total', 'Work that was tried again after an error.', (s) => s.counters.retries);
  counter('pgweave_reconnects_total', 'Connections that were lost and made again.', (s) => s.counters.reconnects);
  linkMetrics(registry, read);
  return registry;
}

/** A scrape asks for some thirty metrics in one turn of the event loop; the job is read once for all of them. */
function readOnceATurn(control: JobControl): () => JobSnapshot {
  let current: JobSnapshot | null = null;
  return () => {
    if (current === null) {
      current = control.read();
      setImmediate(() => {
        current = null;
      });
    }
    return current;
  };
}

/** Fan-out and mesh: one sample a link. */
function linkMetrics(registry: Registry, read: () => JobSnapshot): void {
  const link = (name: string, help: string, value: (edge: NonNullable<JobSnapshot['topology']>['edges'][number]) => number | null | undefined) => {
    registry.registerMetric(
      new Gauge({
        name, help, labelNames: ['job', 'from', 'to'], registers: [],
        collect() {
          this.reset();
          const s = read();
          for (const edge of s.topology?.edges ?? []) {
            const v = value(edge);
            if (v !== null && v !== undefined) this.set({ job: s.job, from: edge.from, to: edge.to }, v);
          }
        },
      }),
    );
  };
  link('pgweave_link_connected', 'Whether a link of a fan-out or mesh is connected: 1 or 0.', (e) => (e.state === 'not-connected' ? 0 : 1));
  link('pgweave_link_lag_bytes', 'WAL that the far end of a link has not applied yet.', (e) => e.lagBytes);
  link('pgweave_link_lag_seconds', 'Delay of a link from commit to commit.', (e) => (e.lagMs === null || e.lagMs === undefined ? null : e.lagMs / 1000));
}
