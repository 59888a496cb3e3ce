import type { Phase, ServerFacts, StepStatus, TableState } from './events.ts';
import { formatBytes } from './units.ts';

/** The words that every view uses for the same fact: terminal, dashboard, status. */
export const phaseWords: Readonly<Record<Phase, string>> = {
  preparing: 'preparing', schema: 'schema', copying: 'copying', indexes: 'indexes', finishing: 'finishing', 'catching-up': 'catching up', streaming: 'streaming', paused: 'paused',
  'switching-over': 'switching over', 'switched-over': 'switched over', done: 'done', stopped: 'stopped', failed: 'failed',
};

export const tableStateWords: Readonly<Record<TableState['name'], string>> = { pending: 'Pending', copying: 'Copying', copied: 'Copied', streaming: 'Streaming', paused: 'Paused' };

export const stepStatusWords: Readonly<Record<StepStatus, string>> = { running: 'running', ok: 'ok', warn: 'warning', failed: 'failed', undone: 'undone', skipped: 'skipped' };

/** `old.example → new.example`; ports where the hosts are the same. Null until both ends are known. */
export function routeOf(source: ServerFacts | null, target: ServerFacts | null): { database: string; from: string; to: string } | null {
  if (!source || !target) return null;
  const sameHost = source.host === target.host;
  const place = (server: ServerFacts) => (sameHost ? `${server.host}:${server.port}` : server.host);
  const database = source.database === target.database ? source.database : `${source.database} → ${target.database}`;
  return { database, from: place(source), to: place(target) };
}

/** `95.1 of 186 GB`: the unit once where both have the same. */
export function bytesOf(done: number, total: number): string {
  const a = formatBytes(done);
  const b = formatBytes(total);
  const [number, unit] = a.split(' ');
  return unit !== undefined && b.endsWith(` ${unit}`) ? `${number} of ${b}` : `${a} of ${b}`;
}

/** `51 %`, never 100 before the end and never 0 once begun. Null where there is nothing to measure against. */
export function percentOf(done: number, total: number): number | null {
  if (total <= 0) return null;
  if (done >= total) return 100;
  if (done <= 0) return 0;
  return Math.min(99, Math.max(1, Math.round((done / total) * 100)));
}

/** `02:14:10`, with the day where it is not today's. UTC, as all clock times are. */
export function clockTime(iso: string, now: number): string {
  const at = new Date(iso);
  const time = at.toISOString().slice(11, 19);
  return at.toISOString().slice(0, 10) === new Date(now).toISOString().slice(0, 10) ? time : `${at.toISOString().slice(0, 10)} ${time}`;
}
