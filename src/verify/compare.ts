import { errorMessage } from '../core/errors.ts';
import type { TableRef } from '../core/tables.ts';
import { displayName } from '../pg/identifiers.ts';
import type { HashOptions } from './checksum-sql.ts';
import { describeRows } from './describe.ts';
import { narrow, type RowDifference } from './narrow.ts';
import type { TableReport } from './report.ts';
import { concernsOneTable, scanUnits, type ScannedUnit } from './scan.ts';
import { eachLimited, SnapshotPool, type VerifySnapshot } from './snapshot-pool.ts';
import type { Incomparable, Unit } from './unit.ts';

export interface CompareOptions {
  readonly job: string;
  readonly source: VerifySnapshot;
  readonly target: VerifySnapshot;
  readonly units: readonly Unit[];
  readonly hash: HashOptions;
  readonly jobs: number;
  /** LSN of both snapshots, where it is one. */
  readonly lsn: string | null;
  /** Differences to keep for each table, for a repair. */
  readonly keep: number;
  /** Of these, how many to describe by column. */
  readonly show: number;
  readonly values: boolean;
  readonly onProgress?: ((progress: CompareProgress) => void) | undefined;
  /** Called as each table ends, equal ones at once. */
  readonly onTable?: ((report: TableReport) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface CompareProgress {
  readonly tables: number;
  readonly tablesDone: number;
  /** Blocks of both sides. */
  readonly blocks: number;
  readonly blocksDone: number;
}

/** A table's report with the differences that a repair works on. */
export interface ComparedTable {
  readonly unit: Unit;
  readonly report: TableReport;
  readonly differences: readonly RowDifference[];
}

/** Compares tables in two snapshots: sums of all in parallel, then the rows behind what differs. */
export async function compareTables(options: CompareOptions): Promise<ComparedTable[]> {
  await using source = new SnapshotPool(options.source, options);
  await using target = new SnapshotPool(options.target, options);
  const pools = { source, target, hash: options.hash };
  const results: ComparedTable[] = [];
  const add = (compared: ComparedTable) => {
    results.push(compared);
    options.onTable?.(compared.report);
  };
  let blocksDone = 0;
  let tablesDone = 0;
  const blocks = options.units.reduce((sum, u) => sum + [...u.sourceRelations, ...u.targetRelations].reduce((n, r) => n + r.blocks, 0), 0);
  const tell = () => options.onProgress?.({ tables: options.units.length, tablesDone, blocks, blocksDone });
  const differing: ScannedUnit[] = [];
  await scanUnits(options.units, {
    source, target, hash: options.hash, jobs: options.jobs,
    onPart: (_side, done) => {
      blocksDone += done;
      tell();
    },
    onUnit: (scanned) => {
      if (scanned.differing.length > 0) differing.push(scanned);
      else {
        tablesDone += 1;
        add({ unit: scanned.unit, differences: [], report: { ...emptyReport(scanned.unit), status: scanned.failure === undefined ? 'equal' : 'not-compared', reason: scanned.failure ?? null, rows: scanned.rows, lsn: options.lsn } });
      }
      tell();
    },
  });
  await eachLimited(differing, options.jobs, async (scanned) => {
    add(await narrowed(scanned, pools, options));
    tablesDone += 1;
    tell();
  });
  return results.sort((a, b) => (displayName(a.report.table.schema, a.report.table.name) < displayName(b.report.table.schema, b.report.table.name) ? -1 : 1));
}

async function narrowed(scanned: ScannedUnit, pools: { readonly source: SnapshotPool; readonly target: SnapshotPool; readonly hash: HashOptions }, options: CompareOptions): Promise<ComparedTable> {
  const { unit, rows } = scanned;
  const base = { ...emptyReport(unit), status: 'different' as const, rows, lsn: options.lsn };
  try {
    const found = await narrow(unit, scanned.differing.length === unit.buckets ? undefined : scanned.differing, pools, Math.max(options.keep, options.show));
    const shown = await describeRows(unit, found.rows.slice(0, options.show), pools, options.values);
    return { unit, differences: found.rows, report: { ...base, missing: found.missing, extra: found.extra, changed: found.changed, shown } };
  } catch (error) {
    if (!concernsOneTable(error)) throw error;
    // The sums differ, so the table does; only the rows cannot be told.
    return { unit, differences: [], report: { ...base, reason: `its rows cannot be told apart: ${errorMessage(error)}` } };
  }
}

export function emptyReport(of: { readonly table: TableRef; readonly target: TableRef; readonly notes?: readonly string[] }): TableReport {
  return { table: of.table, target: of.target, status: 'equal', reason: null, rows: { source: 0, target: 0 }, missing: 0, extra: 0, changed: 0, shown: [], notes: of.notes ?? [], repaired: null, lsn: null };
}

export function incomparableReport(table: Incomparable): TableReport {
  return { ...emptyReport(table), status: table.different ? 'different' : 'not-compared', reason: table.reason };
}
