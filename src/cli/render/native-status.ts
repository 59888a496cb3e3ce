import { syncStateWords, type SyncState } from '../../catalog/subscriptions.ts';
import { formatBytes, formatCount, formatDuration } from '../../core/units.ts';
import { displayName } from '../../pg/identifiers.ts';
import type { NativeStatus, Verdict } from '../../workflows/status.ts';
import { plain, visible, type Paint, type Style } from './layout.ts';

const colours: Readonly<Record<Verdict['state'], Style>> = { ready: 'green', copying: 'yellow', 'catching-up': 'yellow', deferred: 'yellow', disabled: 'red', failing: 'red', broken: 'red', unknown: 'red', 'switched-over': 'green' };
const order: readonly SyncState[] = ['r', 's', 'f', 'd', 'i'];

/** `pgweave status` of a job with a native subscription, as lines. Tables that stream are counted; the others are named, at most `shown`. */
export function renderNativeStatus(status: NativeStatus, options: { readonly paint?: Paint; readonly shown?: number; readonly allTables?: boolean } = {}): string[] {
  const paint = options.paint ?? plain;
  const { source, target, tables } = status;
  const lines = [`${paint('bold', visible(`${source?.place ?? 'source not reached'} → ${target?.place ?? 'target not reached'}`))}   native subscription ${target?.subscription.name ?? ''}   ${paint(colours[status.verdict.state], status.verdict.state.replace('-', ' '))}`];
  for (const problem of status.problems) lines.push(paint('red', visible(problem)));
  lines.push(`lag ${status.lagBytes === null ? 'unknown' : formatBytes(status.lagBytes)}${status.lagMs === null ? '' : ` (${formatDuration(status.lagMs)})`}${source?.slot?.confirmedLsn ? `   target has everything up to ${source.slot.confirmedLsn}` : ''}`);
  if (source?.slot) {
    const { slot } = source;
    const room = slot.safeBytes === null ? 'without a limit (max_slot_wal_keep_size = -1)' : `room for ${formatBytes(Math.max(0, slot.safeBytes))} (max_slot_wal_keep_size)`;
    const serious = slot.walStatus === 'unreserved' || slot.walStatus?.startsWith('lost') === true || (slot.safeBytes !== null && slot.safeBytes <= 0);
    lines.push(`source  PostgreSQL ${source.version}   slot ${slot.name} ${slot.activePid === null ? 'not in use' : `in use by pid ${slot.activePid}`}${source.sender?.state ? ` (${source.sender.state})` : ''}`);
    const text = `        keeps ${slot.retainedBytes === null ? 'no' : formatBytes(slot.retainedBytes)} of WAL for it; ${room}`;
    lines.push(serious ? paint('red', text) : text);
  } else if (source) lines.push(`source  PostgreSQL ${source.version}   ${paint('red', 'no slot')}`);
  if (target) {
    const { subscription, errors } = target;
    lines.push(`target  PostgreSQL ${target.version}   ${subscription.enabled ? 'enabled' : paint('red', 'disabled')}   ${target.workers.length === 0 ? 'no worker runs' : target.workers.map((w) => `${w.kind} (pid ${w.pid}${w.table === null ? '' : `, ${visible(w.table)}`})`).join(', ')}`);
    const last = target.workers.find((w) => w.kind === 'apply');
    if (last?.latest_end_time) lines.push(`        last word from the source ${last.silent_ms === null ? 'unknown' : `${formatDuration(Math.max(0, last.silent_ms))} ago`}; it was at ${last.latest_end_lsn ?? '?'} at ${last.latest_end_time.replace('T', ' ').replace(/\.\d+Z$/, ' UTC')}`);
    if (errors) {
      const conflicts = Object.entries(errors.conflicts).filter(([, n]) => n > 0);
      const text = `        errors: ${formatCount(errors.apply)} applying, ${formatCount(errors.sync)} copying${conflicts.length === 0 ? '' : `; conflicts: ${conflicts.map(([kind, n]) => `${formatCount(n)} ${kind.replaceAll('_', ' ')}`).join(', ')}`}`;
      lines.push(errors.apply + errors.sync > 0 || conflicts.length > 0 ? paint('yellow', text) : text);
    }
  }
  const counts = order.map((state) => [tables.filter((t) => t.state === state).length, state] as const).filter(([n]) => n > 0);
  lines.push(`tables  ${counts.length === 0 ? 'none subscribed' : counts.map(([n, state]) => `${formatCount(n)} ${syncStateWords[state]}`).join(', ')}`);
  const named = options.allTables ? tables : tables.filter((t) => t.state !== 'r');
  const shown = named.slice(0, options.shown ?? 20);
  const width = Math.min(50, Math.max(0, ...shown.map((t) => displayName(t.schema, t.name).length)));
  for (const t of shown) lines.push(`  ${visible(displayName(t.schema, t.name)).padEnd(width)}  ${syncStateWords[t.state]}`);
  if (named.length > shown.length) lines.push(`  and ${formatCount(named.length - shown.length)} more: --json`);
  lines.push(status.verdict.text);
  return lines;
}
