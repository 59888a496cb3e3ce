import type { JobEvent } from './events.ts';
import { displayName } from './tables.ts';
import { formatBytes, formatCount } from './units.ts';
import { phaseWords, stepStatusWords } from './words.ts';

export interface LogEntry {
  readonly level: 'debug' | 'info' | 'warn' | 'error';
  readonly message: string;
  readonly fields?: Readonly<Record<string, unknown>>;
}

const name = (table: { schema: string; name: string }) => displayName(table.schema, table.name);

/** What an event says in a log; null for those that only feed counters (progress comes as a summary every ten seconds instead). */
export function logEntry(event: JobEvent): LogEntry | null {
  switch (event.type) {
    case 'phase':
      return { level: event.phase === 'failed' ? 'error' : 'info', message: event.detail === undefined ? phaseWords[event.phase] : `${phaseWords[event.phase]}: ${event.detail}`, fields: { phase: event.phase } };
    case 'servers': {
      const { source: s, target: t } = event;
      return { level: 'info', message: `source PostgreSQL ${s.version} at ${s.host}:${s.port}/${s.database} (${s.provider}), target PostgreSQL ${t.version} at ${t.host}:${t.port}/${t.database} (${t.provider})` };
    }
    case 'tables-planned': {
      const bytes = event.tables.reduce((sum, t) => sum + t.bytes, 0);
      return { level: 'info', message: `${formatCount(event.tables.length)} tables, ${formatBytes(bytes)}`, fields: { tables: event.tables.length, bytes } };
    }
    case 'indexes-planned':
      return { level: 'info', message: `${formatCount(event.total)} indexes to build`, fields: { indexes: event.total } };
    case 'schema-objects':
      return event.done >= event.total && event.total > 0 ? { level: 'info', message: `schema done, ${formatCount(event.total)} objects` } : null;
    case 'table-state':
      if (event.state.name === 'paused') return { level: 'warn', message: `${name(event.table)} paused${event.state.lsn === null ? '' : ` at ${event.state.lsn}`}: ${event.state.reason}`, fields: { table: name(event.table) } };
      return { level: 'debug', message: `${name(event.table)} ${event.state.name}`, fields: { table: name(event.table) } };
    case 'table-removed':
      return { level: 'info', message: `${name(event.table)} left the job`, fields: { table: name(event.table) } };
    case 'copy-part':
      return { level: 'debug', message: `${name(event.table)} part ${event.part} ${event.status}`, fields: { table: name(event.table), part: event.part } };
    case 'index':
      return event.status === 'progress' ? null : { level: 'debug', message: `index ${displayName(event.table.schema, event.index)} ${event.status}`, fields: { table: name(event.table), index: event.index } };
    case 'step':
      return { level: event.status === 'failed' ? 'error' : event.status === 'warn' ? 'warn' : 'info', message: `${event.name}: ${stepStatusWords[event.status]}${event.detail === '' ? '' : `, ${event.detail}`}`, fields: { elapsedMs: event.elapsedMs } };
    case 'writes':
      return { level: 'info', message: event.refused ? 'writes on the source are refused' : 'writes are no longer refused by pgweave' };
    case 'verified':
      return {
        level: event.differing > 0 ? 'warn' : 'info',
        message: `verified: ${formatCount(event.tables)} tables, ${formatCount(event.rows)} rows, ${event.differing === 0 ? 'all equal' : `${formatCount(event.differing)} tables differ`}${event.lsn === null ? '' : ` at ${event.lsn}`}`,
      };
    case 'way-back':
      return { level: 'info', message: `the way back is ${event.open ? 'open' : 'closed'}: slot ${event.slot}` };
    case 'slot-health':
      if (event.walStatus === 'lost') return { level: 'error', message: `slot ${event.slot} is lost: the source removed WAL that was still needed` };
      return event.walStatus === 'unreserved' ? { level: 'warn', message: `slot ${event.slot} may lose WAL at the source's next checkpoint; it keeps ${formatBytes(event.retainedBytes)}` } : null;
    case 'counter':
      if (event.name === 'reconnects') return { level: 'warn', message: 'connection lost, connecting again' };
      return event.name === 'retries' ? { level: 'debug', message: 'trying again' } : null;
    case 'warning':
      return { level: 'warn', message: event.message, fields: event.hint === undefined ? { code: event.code } : { code: event.code, hint: event.hint } };
    case 'log':
      return event.fields === undefined ? { level: event.level, message: event.message } : { level: event.level, message: event.message, fields: event.fields };
    case 'copy-progress':
    case 'stream-progress':
    case 'table-changes':
    case 'topology':
      return null;
    default:
      return event satisfies never;
  }
}
