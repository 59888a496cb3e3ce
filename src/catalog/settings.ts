import type { Sql } from '../pg/session.ts';

export interface SettingRow {
  readonly name: string;
  /** In the setting's own unit. */
  readonly setting: string;
  readonly unit: string | null;
  /** What a new session of this role and database would start with. */
  readonly reset_val: string;
}

/** Server settings by name; those that the server does not know, or hides, are missing from the result. */
export function settings(names: readonly string[]): Sql {
  return { text: `select name, setting, unit, reset_val from pg_catalog.pg_settings where name = any($1)`, values: [names] };
}

/** A size setting in bytes; -1 (no limit) stays -1. */
export function settingBytes(row: { readonly setting: string; readonly unit: string | null }): number {
  const factor: Readonly<Record<string, number>> = { B: 1, kB: 1024, '8kB': 8192, MB: 1024 ** 2, GB: 1024 ** 3 };
  const value = Number(row.setting);
  return value < 0 ? -1 : value * (factor[row.unit ?? 'B'] ?? 1);
}

/** A duration setting in milliseconds; 0 and -1 (off) stay as they are. */
export function settingMs(row: { readonly setting: string; readonly unit: string | null }): number {
  const factor: Readonly<Record<string, number>> = { us: 0.001, ms: 1, s: 1000, min: 60_000, h: 3_600_000, d: 86_400_000 };
  const value = Number(row.setting);
  return value <= 0 ? value : value * (factor[row.unit ?? 'ms'] ?? 1);
}
