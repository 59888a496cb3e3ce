import type { CheckStatus, Check } from '../preflight/check.ts';
import type { CheckedServer, JobKind } from '../preflight/context.ts';
import { providerNames } from '../preflight/provider.ts';
import { runPreflight } from '../preflight/run.ts';
import type { SelectionRules } from '../core/selection/rules.ts';
import type { SelectionScope } from '../core/selection/select.ts';
import type { TableRef } from '../core/tables.ts';
import { checkJobName } from '../core/job-folder.ts';
import type { ConnectionSpec } from '../pg/conninfo.ts';

export type { Check, CheckItem, CheckStatus, Fix } from '../preflight/check.ts';

export interface ValidateOptions {
  readonly source: ConnectionSpec;
  readonly target: ConnectionSpec;
  readonly job?: string;
  /** What the job will be; default `clone`. */
  readonly mode?: JobKind['mode'];
  /** Parallel copies that the job will run; default 4. */
  readonly jobs?: number;
  readonly dropExisting?: boolean;
  /** Default true: roles are created where they are missing. */
  readonly roles?: boolean;
  /** Default true: objects keep their owners. */
  readonly owner?: boolean;
  /** Tables of which inserts alone shall be replicated: those need no replica identity. */
  readonly insertOnly?: ((table: TableRef) => boolean) | undefined;
  /** With mode `sync`: the address at which the target reaches the source, if another one. */
  readonly sourceForTarget?: ConnectionSpec | undefined;
  /** Which tables the job takes; default all. Throws a usage error where they do not fit the source. */
  readonly rules?: SelectionRules | undefined;
  /** Where the job spans several databases: which one this is, and all of them. */
  readonly scope?: SelectionScope | undefined;
  /** For one database of several, which is made where the target lacks it: a database of the target server that is there. */
  readonly madeThrough?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface ValidatedServer {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly version: string;
  readonly provider: string;
  readonly bytes: number;
}

export interface ValidateResult {
  readonly format: 1;
  readonly job: string;
  readonly mode: JobKind['mode'];
  /** Null where it could not be reached. */
  readonly source: ValidatedServer | null;
  readonly target: ValidatedServer | null;
  readonly tables: number;
  readonly sequences: number;
  readonly bytes: number;
  readonly checks: readonly Check[];
  readonly failures: number;
  readonly warnings: number;
  /** No check failed. */
  readonly ok: boolean;
}

/** Checks both servers for a job of the given kind. Writes nothing on either side; a server that cannot be reached is a failed check, not an error. */
export async function validate(options: ValidateOptions): Promise<ValidateResult> {
  const kind: JobKind = { job: checkJobName(options.job ?? 'default'), mode: options.mode ?? 'clone', jobs: options.jobs ?? 4, dropExisting: options.dropExisting ?? false, roles: options.roles ?? true, owner: options.owner ?? true, insertOnly: options.insertOnly, sourceForTarget: options.sourceForTarget };
  const { source, target, tables, sequences, checks } = await runPreflight({ source: options.source, target: options.target, kind, rules: options.rules, scope: options.scope, madeThrough: options.madeThrough, signal: options.signal });
  const count = (status: CheckStatus) => checks.filter((c) => c.status === status).length;
  return {
    format: 1, job: kind.job, mode: kind.mode, source: described(source), target: described(target), tables: tables.filter((t) => t.kind === 'r' && t.mode === 'copy').length, sequences, bytes: tables.reduce((sum, t) => sum + Number(t.bytes), 0),
    checks, failures: count('fail'), warnings: count('warn'), ok: count('fail') === 0,
  };
}

function described(server: CheckedServer | undefined): ValidatedServer | null {
  if (!server) return null;
  const { session, identity, provider } = server;
  return { host: session.host.host, port: session.host.port, database: identity.database, version: session.serverVersionText.split(' ')[0]!, provider: providerNames[provider], bytes: Number(identity.database_bytes ?? 0n) };
}
