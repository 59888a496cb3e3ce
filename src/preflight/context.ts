import type { PreflightTableRow } from '../catalog/preflight-tables.ts';
import type { TableRef } from '../core/tables.ts';
import type { RoleRightsRow } from '../catalog/role-rights.ts';
import type { ServerIdentityRow } from '../catalog/server-identity.ts';
import type { SettingRow } from '../catalog/settings.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';
import type { Session } from '../pg/session.ts';
import type { Side } from './check.ts';
import type { Provider } from './provider.ts';

/** What the job will be: it decides whether a finding is a failure, a warning or nothing. */
export interface JobKind {
  readonly job: string;
  /** `clone` only copies; `follow` streams changes; `sync` hands over to a native subscription. */
  readonly mode: 'clone' | 'follow' | 'sync';
  /** Parallel copies: each takes a connection on both sides. */
  readonly jobs: number;
  readonly dropExisting: boolean;
  /** Roles are created on the target where they are missing. */
  readonly roles: boolean;
  /** Objects get their owner again. */
  readonly owner: boolean;
  /** Tables of which the user wants inserts alone to be replicated. */
  readonly insertOnly?: ((table: TableRef) => boolean) | undefined;
  /** Where a native subscription finds the source, if not at the address that pgweave uses. */
  readonly sourceForTarget?: ConnectionSpec | undefined;
}

/** One server with what every check wants to know, read once. */
export interface CheckedServer {
  readonly side: Side;
  readonly session: Session;
  readonly provider: Provider;
  readonly identity: ServerIdentityRow;
  readonly rights: RoleRightsRow;
  readonly settings: ReadonlyMap<string, SettingRow>;
}

/** A table of the source with what the job makes of it. */
export interface PreflightTable extends PreflightTableRow {
  readonly mode: 'copy' | 'schema-only';
  /** Row filter: a boolean expression in parentheses. */
  readonly where: string | undefined;
  /** Columns that do not go. */
  readonly excludeColumns: readonly string[];
  /** Its name on the target. */
  readonly mapTo: TableRef;
}

export interface PreflightContext {
  readonly kind: JobKind;
  readonly source: CheckedServer | undefined;
  readonly target: CheckedServer | undefined;
  /** Tables of the source that the job takes, with those that are only made; empty where the source cannot be reached. */
  readonly tables: readonly PreflightTable[];
  /** Bytes of all tables of the source, taken or not. */
  readonly allTablesBytes: number;
  /** Ordinary transactions end sooner; one this old is probably forgotten. */
  readonly oldTransactionSeconds: number;
  readonly signal: AbortSignal | undefined;
}

export function majorOf(server: CheckedServer): number {
  return Math.floor(server.session.serverVersion / 10_000);
}

/** Whether the job decodes WAL on the source. */
export function decodes(kind: JobKind): boolean {
  return kind.mode !== 'clone';
}

/** A whole-number setting; undefined where the server hides or lacks it. */
export function numberSetting(server: CheckedServer, name: string): number | undefined {
  const row = server.settings.get(name);
  return row === undefined ? undefined : Number(row.setting);
}
