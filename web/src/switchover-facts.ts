import type { ServerFacts } from '../../src/core/events.ts';
import type { JobSummary } from '../../src/core/snapshot.ts';
import { isOnWayBack } from '../../src/core/way-back.ts';
import type { CheckResult } from '../../src/server/job-control.ts';
import type { JobView } from '../../src/server/messages.ts';
import { formatBytes, formatCount, formatDuration } from '../../src/core/units.ts';
import { serverName } from './facts.ts';

export type Stage = 'before' | 'running' | 'done' | 'stopped';

/** Where the guided page stands. Pure. */
export function stageOf({ summary, state }: JobView): Stage {
  if (summary.phase === 'switching-over' || state.switchover.status === 'running') return 'running';
  if (summary.phase === 'switched-over' || (isOnWayBack(summary) && state.switchover.status !== 'failed' && state.switchover.status !== 'stopped')) return 'done';
  if (state.switchover.status === 'failed' || state.switchover.status === 'stopped') return 'stopped';
  return 'before';
}

/** Who takes writes after a switchover, and who was the source before it: on the way back the job's source is the new primary. */
export function sidesAfter(s: JobSummary): { readonly primary: ServerFacts | null; readonly old: ServerFacts | null; readonly primaryName: string; readonly oldName: string } {
  const [primary, old] = isOnWayBack(s) ? [s.source, s.target] : [s.target, s.source];
  return { primary, old, primaryName: serverName(primary, old, 'the target'), oldName: serverName(old, primary, 'the old source') };
}

/** What the snapshot tells and what the servers were asked, each thing once: an answer of the servers is the better one. */
export function allChecks(known: readonly CheckResult[], asked: readonly CheckResult[]): CheckResult[] {
  const names = new Set(asked.map((c) => c.name));
  return [...known.filter((c) => !names.has(c.name)), ...asked];
}

/** What the snapshot itself tells about being ready; the job's own checks come on top of it. */
export function knownChecks({ summary: s }: JobView): CheckResult[] {
  const { totals, stream } = s;
  const checks: CheckResult[] = [];
  checks.push(
    s.phase === 'streaming' || s.phase === 'switched-over'
      ? { name: 'The target follows', status: 'ok', detail: 'Changes are applied as they come.' }
      : { name: 'The target follows', status: 'failed', detail: `The job is not streaming: ${s.phase.replaceAll('-', ' ')}.`, fix: 'Wait until the job streams.' },
  );
  if (stream) {
    const lag = `${formatBytes(stream.lagBytes)}${stream.lagMs === null ? '' : `, ${formatDuration(stream.lagMs)}`}`;
    // What is behind has to be applied while writes are refused.
    checks.push({ name: 'Lag', status: stream.lagBytes > 64 * 1024 ** 2 || (stream.lagMs ?? 0) > 5000 ? 'warn' : 'ok', detail: `${lag}. It is applied while writes are refused.` });
  }
  checks.push(
    totals.tablesPaused > 0
      ? { name: 'Tables', status: 'failed', detail: `${formatCount(totals.tablesPaused)} of ${formatCount(totals.tables)} tables are paused.`, fix: 'Settle them on the Tables page.' }
      : totals.tablesStreaming < totals.tables
        ? { name: 'Tables', status: 'warn', detail: `${formatCount(totals.tablesStreaming)} of ${formatCount(totals.tables)} tables stream.` }
        : { name: 'Tables', status: 'ok', detail: `${formatCount(totals.tables)} of ${formatCount(totals.tables)} stream.` },
  );
  if (s.verified) {
    const { tables, rows, differing } = s.verified;
    checks.push(differing === 0 ? { name: 'Rows compared', status: 'ok', detail: `${formatCount(tables)} tables, ${formatCount(rows)} rows are equal.` } : { name: 'Rows compared', status: 'failed', detail: `${formatCount(differing)} tables differ.`, fix: 'pgweave verify --repair' });
  } else checks.push({ name: 'Rows compared', status: 'warn', detail: 'Not yet in this run.', fix: 'Tick "Compare all rows" below, or run: pgweave verify' });
  return checks;
}

/** Milliseconds that writes have been refused; `sinceReceivedMs` is how long ago the view came. Null where they never were. */
export function refusedMs({ summary: s }: JobView, sinceReceivedMs: number): number | null {
  if (!s.writesRefused) return null;
  const end = s.writesRefused.until === null ? Date.parse(s.writtenAt) + Math.max(0, sinceReceivedMs) : Date.parse(s.writesRefused.until);
  return Math.max(0, end - Date.parse(s.writesRefused.since));
}
