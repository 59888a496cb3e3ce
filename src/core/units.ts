import { usageError } from './errors.ts';

const durationUnits: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, min: 60_000, h: 3_600_000, d: 86_400_000 };
// Sizes as PostgreSQL counts them: 1 kB is 1024 bytes, so that figures match psql's.
const sizeUnits: Readonly<Record<string, number>> = { b: 1, kb: 1024, mb: 1024 ** 2, gb: 1024 ** 3, tb: 1024 ** 4 };

/** Parses `500ms`, `30s`, `5m`, `2h`, `1d` or a bare number of seconds; returns milliseconds. Throws a usage error. */
export function parseDuration(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)?$/i.exec(text.trim());
  if (!match) throw usageError(`not a duration: "${text}"`, 'Write a number with a unit: 500ms, 30s, 5m, 2h, 1d.');
  return Number(match[1]) * durationUnits[(match[2] ?? 's').toLowerCase()]!;
}

/** Parses `10GB`, `512MB`, `8kB` or a bare number of bytes; returns bytes. Throws a usage error. */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(b|kb|mb|gb|tb)?$/i.exec(text.trim());
  if (!match) throw usageError(`not a size: "${text}"`, 'Write a number with a unit: 8kB, 512MB, 10GB, 1TB.');
  return Math.round(Number(match[1]) * sizeUnits[(match[2] ?? 'b').toLowerCase()]!);
}

/** `186 GB`, `12.4 MB`, `0 B`: three significant digits, units of 1024. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = bytes;
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return `${value.toFixed(digits)} ${units[unit]}`;
}

/** `1,911,204,771`. */
export function formatCount(count: number | bigint): string {
  return count.toLocaleString('en-US');
}

/** `00:12:41`; days are counted in hours. */
export function formatClock(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  const pad = (n: number) => String(n).padStart(2, '0');
  return `${pad(Math.floor(seconds / 3600))}:${pad(Math.floor(seconds / 60) % 60)}:${pad(seconds % 60)}`;
}

/** `12 ms`, `2.6 s`, `13 min 4 s`, `1 h 5 min`. */
export function formatDuration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 120_000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds / 60) % 60} min`;
}
