import { usageError } from '../errors.ts';

const unitNames: Readonly<Record<string, WindowUnit>> = {
  s: 'second', sec: 'second', second: 'second', min: 'minute', minute: 'minute', h: 'hour', hour: 'hour', d: 'day', day: 'day', w: 'week', week: 'week', mon: 'month', month: 'month', y: 'year', yr: 'year', year: 'year',
};
const unitMs = { second: 1000, minute: 60_000, hour: 3_600_000, day: 86_400_000, week: 7 * 86_400_000 } as const;

export type WindowUnit = 'second' | 'minute' | 'hour' | 'day' | 'week' | 'month' | 'year';

/** How far back a time filter reaches. */
export interface TimeSpan {
  readonly count: number;
  readonly unit: WindowUnit;
}

/** Parses `6 months`, `90d`, `1 year`, `30 min`. Throws a usage error; a bare `m` could be minutes or months and is refused. */
export function parseTimeSpan(text: string): TimeSpan {
  const match = /^\s*(\d+)\s*([a-z]+?)s?\s*$/i.exec(text) ?? /^\s*(\d+)\s*(s)\s*$/i.exec(text);
  const unit = match ? unitNames[match[2]!.toLowerCase()] : undefined;
  if (!match || !unit) {
    throw usageError(`not a time span: "${text}"`, /^\s*\d+\s*m\s*$/i.test(text) ? 'Write "min" for minutes or "months".' : 'Write a whole number and a unit from seconds to years: 30 minutes, 90 days, 6 months, 1 year.');
  }
  const count = Number(match[1]);
  if (!Number.isSafeInteger(count) || count < 1 || count > 100_000_000) throw usageError(`not a time span: "${text}"`, 'The number must be at least 1.');
  return { count, unit };
}

/**
 * The moment a span ago, as text for SQL, in UTC with whole seconds: `2026-05-28 20:00:00+00`. Months and years count by the calendar, and the day is cut to the
 * month's last as PostgreSQL's interval arithmetic does. Throws a usage error where it lies before the year 1.
 */
export function momentBefore(span: TimeSpan, now: Date): string {
  let at: Date;
  if (span.unit === 'month' || span.unit === 'year') {
    const months = now.getUTCFullYear() * 12 + now.getUTCMonth() - span.count * (span.unit === 'year' ? 12 : 1);
    const year = Math.floor(months / 12);
    const month = months - year * 12;
    const lastDay = new Date(0);
    lastDay.setUTCFullYear(year, month + 1, 0);
    at = new Date(now);
    at.setUTCFullYear(year, month, Math.min(now.getUTCDate(), lastDay.getUTCDate()));
  } else at = new Date(now.getTime() - span.count * unitMs[span.unit]);
  if (Number.isNaN(at.getTime()) || at.getUTCFullYear() < 1) throw usageError(`${spanText(span)} ago lies before the year 1`, 'Leave the filter out to take all rows.');
  return `${at.toISOString().slice(0, 19).replace('T', ' ')}+00`;
}

export function spanText(span: TimeSpan): string {
  return `${span.count} ${span.unit}${span.count === 1 ? '' : 's'}`;
}
