import type { JobSnapshot } from '../../core/snapshot.ts';
import { formatBytes, formatCount, formatDuration } from '../../core/units.ts';
import { routeOf } from '../../core/words.ts';
import { visible } from './layout.ts';

/** Lines and pieces that the status and the live view share. */

/** `shop: old.example → new.example`, or the job's name until the servers are known. */
export function titleOf(snapshot: JobSnapshot): string {
  const route = routeOf(snapshot.source, snapshot.target);
  return visible(route ? `${route.database}: ${route.from} → ${route.to}` : `job ${snapshot.job}`);
}

/** `lag 0 B (12 ms)   1,840 rows/s   target has everything up to 3A/9F21C0E8`; null where nothing streams. */
export function lagLine(snapshot: JobSnapshot): string | null {
  const { stream, rates } = snapshot;
  if (!stream) return null;
  const parts = [`lag ${formatBytes(stream.lagBytes)}${stream.lagMs === null ? '' : ` (${formatDuration(stream.lagMs)})`}`];
  if (rates.appliedRowsPerSecond !== null) parts.push(`${formatCount(Math.round(rates.appliedRowsPerSecond))} rows/s`);
  parts.push(`target has everything up to ${stream.appliedLsn}`);
  if (stream.spoolBytes !== undefined && stream.spoolBytes > 0) parts.push(`${formatBytes(stream.spoolBytes)} in the spool`);
  return parts.join('   ');
}

/** `source keeps 3.2 GB of WAL for us; room for 61 GB (max_slot_wal_keep_size)`; null where no slot is watched. */
export function slotLine(snapshot: JobSnapshot): { text: string; serious: boolean } | null {
  const { slot } = snapshot;
  if (!slot) return null;
  if (slot.walStatus === 'lost') return { text: `slot ${slot.slot} is lost: the source removed WAL that was still needed; the job cannot go on from here`, serious: true };
  const room = slot.safeBytes === null ? 'without a limit (max_slot_wal_keep_size = -1)' : `room for ${formatBytes(Math.max(0, slot.safeBytes))} (max_slot_wal_keep_size)`;
  return { text: `source keeps ${formatBytes(slot.retainedBytes)} of WAL for us; ${room}`, serious: slot.walStatus === 'unreserved' || (slot.safeBytes !== null && slot.safeBytes <= 0) };
}

/** `411 tables streaming, 1 paused`. */
export function tablesLine(snapshot: JobSnapshot): string {
  const t = snapshot.totals;
  let copying = 0;
  for (const table of snapshot.tables) if (table.state.name === 'copying') copying += 1;
  const counts: readonly (readonly [number, string])[] = [
    [t.tablesStreaming, 'streaming'], [t.tablesCopied, 'copied'], [copying, 'copying'], [t.tables - t.tablesStreaming - t.tablesCopied - t.tablesPaused - copying, 'pending'], [t.tablesPaused, 'paused'],
  ];
  const shown = counts.filter(([n]) => n > 0);
  if (shown.length === 0) return 'no tables yet';
  return shown.map(([n, word], i) => `${formatCount(n)}${i === 0 ? (n === 1 ? ' table' : ' tables') : ''} ${word}`).join(', ');
}

/** Parts that are being copied now, over all tables. */
export function copiesRunning(snapshot: JobSnapshot): number {
  let n = 0;
  for (const t of snapshot.tables) n += t.partsRunning;
  return n;
}

export function indexesRunning(snapshot: JobSnapshot): number {
  let n = 0;
  for (const t of snapshot.tables) n += t.building.length;
  return n;
}

/** ` --job NAME` where the job is not the default one. */
export function jobFlag(snapshot: JobSnapshot): string {
  return snapshot.job === 'default' ? '' : ` --job ${snapshot.job}`;
}

/** An argument as a POSIX shell needs it. */
export function shellWord(text: string): string {
  return /^[A-Za-z0-9_.,:/@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
