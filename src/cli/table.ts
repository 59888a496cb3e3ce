import { confirm, isCancel } from '@clack/prompts';
import type { Command } from 'commander';
import { interruptedError, exitCodes, usageError } from '../core/errors.ts';
import { tableStateWords } from '../core/words.ts';
import type { TableRef } from '../core/tables.ts';
import { displayName } from '../pg/identifiers.ts';
import type { TableAction, TableResult } from '../workflows/table.ts';
import { jobCommand, print, printJson, runAction, type CommonOptions, type JobContext } from './common.ts';
import { refuseInstance } from './instance.ts';

interface TableFlags extends CommonOptions {
  readonly retry?: boolean;
  readonly skipTransaction?: boolean;
  readonly copyAgain?: boolean;
  readonly add?: boolean;
  readonly drop?: boolean;
}

export function tableCommandLine(): Command {
  return jobCommand('table', 'settle a paused table; add or drop one', 'pgweave table public.invoices                        (why it is paused)\npgweave table public.invoices --retry\npgweave table public.invoices --copy-again')
    .argument('<name>', 'schema.table, or table for public.table; quoted parts as in SQL')
    .option('--retry', 'apply the changes that wait, after the cause was removed')
    .option('--skip-transaction', 'leave out what the first waiting transaction did to this table, then go on')
    .option('--copy-again', 'empty it on the target and copy it anew while the rest streams')
    .option('--add', 'take a table into the job: publish it, copy it, stream it')
    .option('--drop', 'take it out of the job; its rows on the target stay')
    .action((name: string, flags: TableFlags) => runAction(flags, (context) => table(name, flags, context)));
}

/** `orders`, `public.orders`, `"Odd.Schema"."Odd ""name"`. Unquoted parts fold to lower case, as in SQL. */
export function parseTableName(text: string): TableRef {
  const parts: string[] = [];
  let rest = text.trim();
  for (;;) {
    const match = /^(?:"((?:[^"]|"")+)"|([^".\s]+))(\.|$)/.exec(rest);
    if (!match) throw usageError(`not a table name: ${text}`, 'Write schema.table, with double quotes around names that need them: \'"Odd.Schema"."Table"\'.');
    parts.push(match[1] === undefined ? match[2]!.toLowerCase() : match[1].replaceAll('""', '"'));
    rest = rest.slice(match[0].length);
    if (match[3] === '') break;
  }
  if (parts.length > 2) throw usageError(`not a table name: ${text}`, 'A table has a schema and a name; a dot inside a name needs quotes.');
  return parts.length === 1 ? { schema: 'public', name: parts[0]! } : { schema: parts[0]!, name: parts[1]! };
}

function actionOf(flags: TableFlags): TableAction | undefined {
  const given: TableAction[] = [];
  if (flags.retry) given.push('retry');
  if (flags.skipTransaction) given.push('skip-transaction');
  if (flags.copyAgain) given.push('copy-again');
  if (flags.add) given.push('add');
  if (flags.drop) given.push('drop');
  if (given.length > 1) throw usageError(`--${given[0]} and --${given[1]} exclude one another`, 'Give one of --retry, --skip-transaction, --copy-again, --add, --drop.');
  return given[0];
}

async function table(name: string, flags: TableFlags, context: JobContext): Promise<number> {
  const ref = parseTableName(name);
  const action = actionOf(flags);
  if (context.interactive && (action === 'copy-again' || action === 'skip-transaction')) {
    const what = action === 'copy-again' ? `Empty ${displayName(ref.schema, ref.name)} on the target and copy it anew?` : `Leave out one transaction's changes to ${displayName(ref.schema, ref.name)}? The target will then differ from the source.`;
    const answer = await confirm({ message: what, initialValue: false });
    if (isCancel(answer) || !answer) throw interruptedError('Nothing was changed.');
  }
  refuseInstance(context, `table ${name}`);
  const { tableCommand } = await import('../workflows/table.ts');
  const result = await tableCommand({ source: context.source(), target: context.target(), job: context.job, table: ref, action, folder: context.folder, signal: context.signal });
  if (context.json) printJson(result);
  else print(...resultText(result, action, context.job));
  // Retried and paused again: the command did not do what it was asked for.
  return action !== undefined && result.state?.name === 'paused' ? exitCodes.failed : exitCodes.done;
}

function resultText(result: TableResult, action: TableAction | undefined, job: string): string[] {
  const shown = displayName(result.table.schema, result.table.name);
  const named = job === 'default' ? '' : ` --job ${job}`;
  const lines: string[] = [];
  if (result.skippedLsn !== null) lines.push(`${shown}: the transaction at ${result.skippedLsn} is left out. pgweave verify shows what differs now.`);
  if (result.state === null) {
    lines.push(action === 'drop' ? `${shown} is no longer part of the job. Its rows on the target stay.` : `${shown} is not part of the job.`);
    if (action === undefined) lines.push(`To take it in: pgweave table ${shown} --add${named}`);
    return lines;
  }
  lines.push(`${shown}: ${tableStateWords[result.state.name].toLowerCase()}${result.copiedLsn === null ? '' : `, copied at ${result.copiedLsn}`}${result.by === 'here' && result.state.name === 'streaming' ? '; its changes come once the follower runs' : ''}`);
  if (result.state.name === 'paused') {
    lines.push(`  since ${result.state.lsn ?? 'the copy'}: ${result.state.reason}`);
    if (result.rowKey !== null) lines.push(`  row: ${result.rowKey}`);
    lines.push(`  ${result.waiting} ${result.waiting === 1 ? 'change waits' : 'changes wait'} on the target`, `  pgweave table ${shown}${named} --retry | --skip-transaction | --copy-again`);
  }
  return lines;
}
