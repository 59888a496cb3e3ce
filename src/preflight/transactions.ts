import { oldTransactions, preparedTransactions, seesActivity, type OldTransactionRow, type PreparedTransactionRow } from '../catalog/old-transactions.ts';
import { formatDuration } from '../core/units.ts';
import { quoteLiteral } from '../pg/identifiers.ts';
import { advice, check, counted, sqlFix, type Check } from './check.ts';
import { decodes, type CheckedServer, type PreflightContext } from './context.ts';
import { adminFix } from './provider-fixes.ts';

/** Creating a slot waits for every transaction that runs at that moment, in every database of the server [25]. */
export async function transactionChecks(source: CheckedServer, context: PreflightContext): Promise<Check[]> {
  // Transactions of a standby are its primary's, and not to be seen here.
  if (source.identity.in_recovery) return [];
  const checks: Check[] = [];
  const old = await source.session.query<OldTransactionRow>(oldTransactions(context.oldTransactionSeconds));
  const { sees } = await source.session.one<{ sees: boolean }>(seesActivity());
  const hidden = sees || source.rights.superuser ? '' : ' that this role may see';
  if (old.length > 0) {
    checks.push(check('long-transactions', 'source', 'warn', `${counted(old.length, 'transaction')} older than ${formatDuration(context.oldTransactionSeconds * 1000)}${decodes(context.kind) ? ': creating the slot waits until each has ended' : ''}`, {
      facts: { count: old.length, oldestSeconds: old[0]!.age_seconds, seesAll: hidden === '' },
      items: old.map((t) => ({ subject: `process ${t.pid}`, note: `${formatDuration(t.age_seconds * 1000)} old, role ${t.role ?? '?'}, database ${t.database ?? '?'}, ${t.application === '' ? 'no application name' : t.application}, ${t.state ?? '?'}`, fix: sqlFix('source', `select pg_terminate_backend(${t.pid});`) })),
    }));
  } else {
    checks.push(check('long-transactions', 'source', hidden === '' || !decodes(context.kind) ? 'ok' : 'warn', hidden === '' ? 'no long transaction would block a slot' : `no long transaction${hidden}; those of other roles are hidden`, {
      facts: { count: 0, seesAll: hidden === '' }, ...(hidden === '' ? {} : { fix: sqlFix('source', `grant pg_read_all_stats to ${source.rights.role};`) }),
    }));
  }
  const prepared = await source.session.query<PreparedTransactionRow>(preparedTransactions());
  if (prepared.length > 0) {
    checks.push(check('prepared-transactions', 'source', decodes(context.kind) ? 'fail' : 'warn', `${counted(prepared.length, 'prepared transaction')}${decodes(context.kind) ? `: no slot can be created until ${prepared.length === 1 ? 'it is' : 'they are'} committed or rolled back` : ': what they wrote is not copied'}`, {
      facts: { count: prepared.length },
      items: prepared.map((t) => ({ subject: t.gid, note: `prepared ${formatDuration(t.age_seconds * 1000)} ago by ${t.owner} in ${t.database}`, fix: sqlFix('source', `commit prepared ${quoteLiteral(t.gid).trim()};   -- or rollback prepared, in database ${t.database}`) })),
    }));
  } else checks.push(check('prepared-transactions', 'source', 'ok', 'no prepared transaction is open', { facts: { count: 0 } }));
  return checks;
}

/** Switching over ends other sessions and sets the database read only: said early, since the rights are given by others. */
export function switchoverRightsCheck(source: CheckedServer, context: PreflightContext): Check[] {
  if (!decodes(context.kind)) return [];
  const { superuser, owns_database: owns, signal_backend: signals } = source.rights;
  const facts = { ownsDatabase: owns, mayEndSessions: superuser || signals };
  if (superuser || (owns && signals)) return [check('switchover-rights', 'source', 'ok', 'role may refuse writes at switchover', { facts })];
  const lacks = [...(owns ? [] : ['own the database (to set default_transaction_read_only)']), ...(signals ? [] : ['end other roles\' sessions']) ];
  return [check('switchover-rights', 'source', 'warn', `role ${source.rights.role} may not ${lacks.join(' or ')}: switchover will need that, or --lock tables`, {
    facts, fix: [...(signals ? [] : [sqlFix('source', `grant pg_signal_backend to ${source.rights.role};`)]), ...(owns ? [] : [adminFix('source', source.provider, source.rights.role), advice('pgweave', 'or give --lock tables to switchover')])],
  })];
}
