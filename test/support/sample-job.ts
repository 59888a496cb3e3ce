import type { JobEvent, PlannedTable } from '../../src/core/events.ts';
import { JobStatus } from '../../src/core/snapshot.ts';

/** A clock that only moves when told. */
export class FakeClock {
  now = Date.parse('2026-03-01T02:00:00.000Z');
  readonly read = (): number => this.now;
  advance(ms: number): void {
    this.now += ms;
  }
}

const gib = 1024 ** 3;

/** The migration of the manual's transcripts as events: `shop`, old.example to new.example. */
export function sampleJob(options: { tables?: number; clock?: FakeClock; job?: string } = {}): { status: JobStatus; clock: FakeClock; send: (...events: JobEvent[]) => void } {
  const clock = options.clock ?? new FakeClock();
  const status = new JobStatus(options.job ?? 'default', 'clone', clock.read);
  const send = (...events: JobEvent[]) => {
    for (const event of events) status.emit(event);
  };
  send(
    {
      type: 'servers',
      source: { host: 'old.example', port: 5432, database: 'shop', version: '15.18', provider: 'Amazon RDS' },
      target: { host: 'new.example', port: 5432, database: 'shop', version: '18.4', provider: 'self-hosted' },
    },
    { type: 'phase', phase: 'schema' },
    { type: 'schema-objects', done: 1204, total: 1204 },
    { type: 'tables-planned', tables: plannedTables(options.tables ?? 4) },
    { type: 'indexes-planned', total: 640 },
    { type: 'phase', phase: 'copying' },
  );
  return { status, clock, send };
}

const names = ['orders', 'events', 'invoices', 'customers', 'products', 'prices', 'sessions', 'audit_log'];

export function plannedTables(count: number): PlannedTable[] {
  return Array.from({ length: count }, (_, i) => ({
    schema: i % 3 === 2 ? 'billing' : 'public', name: i < names.length ? names[i]! : `${names[i % names.length]!}_${i}`,
    bytes: i === 0 ? 10 * gib : Math.round(gib / (1 + (i % 7))), rows: 1_000_000 - i, parts: i === 0 ? 12 : 1, indexes: 2,
  }));
}

/** Brings the sample to streaming, with `paused` of its tables waiting. */
export function startStreaming(job: ReturnType<typeof sampleJob>, paused = 0): void {
  const { status, clock, send } = job;
  const tables = status.read().tables.map(({ schema, name }) => ({ schema, name }));
  for (const table of tables) send({ type: 'table-state', table, state: { name: 'streaming' } });
  for (const table of tables.slice(0, paused)) {
    send({
      type: 'table-state', table,
      state: { name: 'paused', reason: 'duplicate key (invoice_no)=(2024-118) violates invoices_invoice_no_key on the target', lsn: '3A/9E00F1B8' },
    });
  }
  clock.advance(850_000);
  send(
    { type: 'phase', phase: 'streaming' },
    { type: 'slot-health', slot: 'pgweave_default', walStatus: 'reserved', retainedBytes: 3.2 * gib, safeBytes: 61 * gib },
    { type: 'stream-progress', receivedLsn: '3A/9F21C0E8', appliedLsn: '3A/9F21C0E8', sourceLsn: '3A/9F21C0E8', lagBytes: 0, lagMs: 12, transactions: 100, rows: 18_400 },
  );
}
