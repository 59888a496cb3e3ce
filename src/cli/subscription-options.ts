import { Option, type Command } from 'commander';
import { usageError } from '../core/errors.ts';
import { parseTablePattern, partMatches, splitList, type TablePattern } from '../core/selection/names.ts';
import type { TableRef } from '../core/tables.ts';
import { parseConninfo } from '../pg/conninfo.ts';
import type { SyncOptions } from '../workflows/sync.ts';

/** Flags about the native subscription, for sync and for clone --sync. */
export interface SubscriptionFlags {
  readonly sourceForTarget?: string;
  readonly subscriptionPassfile?: string;
  readonly insertOnly?: readonly string[];
  readonly streaming?: 'off' | 'on' | 'parallel';
  /** Undefined: where the types allow it. */
  readonly binary?: boolean;
  readonly twoPhase?: boolean;
  readonly origin?: 'any' | 'none';
  readonly ignoreMissing?: boolean;
}

/** Adds them. `clone` has --origin of its own and no table that could be missing. */
export function addSubscriptionOptions(command: Command, options: { readonly clone?: boolean } = {}): Command {
  command
    .option('--source-for-target <uri>', 'the address (and role) at which the target reaches the source, where it is not the one of --source')
    .option('--subscription-passfile <file>', 'password file on the target\'s machine, so that the subscription stores no password')
    .option('--insert-only <names>', 'tables without a replica identity of which only inserts are replicated, separated by commas', (value: string, before: readonly string[] | undefined) => [...(before ?? []), value])
    .addOption(new Option('--streaming <how>', 'transactions in progress: off, on (14+), parallel (16+ on the target)').choices(['off', 'on', 'parallel']))
    .option('--binary', 'values in binary form (default: where every type allows it)')
    .option('--no-binary', 'values as text')
    .option('--two-phase', 'replicate PREPARE TRANSACTION as such (15+)');
  if (options.clone !== true) {
    command
      .option('--ignore-missing', 'leave out tables that the target does not have')
      .addOption(new Option('--origin <which>', 'none leaves out what the source itself got by replication (16+)').choices(['any', 'none']));
  }
  return command;
}

/** The tables of --insert-only. */
export function insertOnlyTables(flags: Pick<SubscriptionFlags, 'insertOnly'>): TablePattern[] {
  return (flags.insertOnly ?? []).flatMap(splitList).map(parseTablePattern);
}

/** What {@link SyncOptions} takes of them. Throws usage errors. */
export function subscriptionOptions(flags: SubscriptionFlags): Pick<SyncOptions, 'sourceForTarget' | 'passfile' | 'insertOnly' | 'streaming' | 'binary' | 'twoPhase' | 'origin' | 'ignoreMissing'> {
  const patterns = insertOnlyTables(flags);
  if (flags.subscriptionPassfile !== undefined && !flags.subscriptionPassfile.startsWith('/')) throw usageError(`not an absolute path: ${flags.subscriptionPassfile}`, 'The file lies on the target\'s machine and is read by its server: /var/lib/postgresql/.pgpass');
  return {
    ...(flags.sourceForTarget === undefined ? {} : { sourceForTarget: parseConninfo(flags.sourceForTarget) }), ...(flags.subscriptionPassfile === undefined ? {} : { passfile: flags.subscriptionPassfile }),
    ...(patterns.length === 0 ? {} : { insertOnly: (table: TableRef) => patterns.some((pattern) => names(pattern, table)) }), ...(flags.streaming === undefined ? {} : { streaming: flags.streaming }),
    ...(flags.binary === undefined ? {} : { binary: flags.binary }), ...(flags.twoPhase === undefined ? {} : { twoPhase: flags.twoPhase }), ...(flags.origin === undefined ? {} : { origin: flags.origin }),
    ...(flags.ignoreMissing === undefined ? {} : { ignoreMissing: flags.ignoreMissing }),
  };
}

function names(pattern: TablePattern, table: TableRef): boolean {
  const schema = pattern.schema ?? pattern.qualifier ?? { text: 'public', quoted: true };
  return partMatches(schema, table.schema) && partMatches(pattern.name, table.name);
}
