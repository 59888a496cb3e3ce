import { advice, check, sqlFix, type Check } from './check.ts';
import { decodes, majorOf, type CheckedServer, type PreflightContext } from './context.ts';
import { settingFix } from './provider-fixes.ts';
import { quoteIdent } from '../pg/identifiers.ts';

const testedFrom = 14;
const testedTo = 18;

/** Versions of both servers: what is needed, what is tried in the tests, and the direction of the move. */
export function versionChecks(source: CheckedServer, target: CheckedServer, context: PreflightContext): Check[] {
  const from = majorOf(source);
  const to = majorOf(target);
  const facts = { source: source.session.serverVersionText, target: target.session.serverVersionText };
  const text = `PostgreSQL ${from} to ${to}`;
  if (decodes(context.kind) && from < 10) return [check('versions', 'both', 'fail', `${text}: PostgreSQL ${from} has no logical replication`, { facts, fix: advice('pgweave', 'only a plain clone is possible: leave --follow and --sync out') })];
  if (to < 12) return [check('versions', 'both', 'fail', `${text}: a target before 12 is not supported`, { facts, fix: advice('target', `use a server of version ${testedFrom} to ${testedTo}`) })];
  const why: string[] = [];
  if (to < from) why.push('the target is older: objects that use what it does not know will fail to be created');
  for (const [side, version] of [['source', from], ['target', to]] as const) if (version < testedFrom || version > testedTo) why.push(`the ${side}'s version is outside ${testedFrom} to ${testedTo}, where pgweave is tested`);
  return [check('versions', 'both', why.length > 0 ? 'warn' : 'ok', why.length > 0 ? `${text}: ${why.join('; ')}` : text, { facts })];
}

/** Source and target must be two databases. */
export function sameDatabaseCheck(source: CheckedServer, target: CheckedServer): Check[] {
  const a = source.identity;
  const b = target.identity;
  const facts = { sourceSystem: a.system_identifier, targetSystem: b.system_identifier, sourceDatabase: a.database, targetDatabase: b.database };
  const sameSystem = a.system_identifier !== null && b.system_identifier !== null ? a.system_identifier === b.system_identifier : sameAddress(source, target);
  const sameDatabase = a.database_oid === b.database_oid && a.database === b.database;
  if (sameSystem && sameDatabase) {
    return [check('same-database', 'both', 'fail', `source and target are the same database: ${a.database} of system ${a.system_identifier ?? `${source.session.host.host}:${source.session.host.port}`}`, { facts, fix: advice('target', 'name another database as --target; a physical copy of the source counts as the same database too') })];
  }
  return [check('same-database', 'both', 'ok', sameSystem ? 'source and target are two databases of one server' : 'source and target are two servers', { facts })];
}

function sameAddress(source: CheckedServer, target: CheckedServer): boolean {
  return source.session.host.host === target.session.host.host && source.session.host.port === target.session.host.port;
}

/** A standby as the source [47]: decoding there needs 16 and a publication made on its primary. */
export function standbyCheck(source: CheckedServer, context: PreflightContext): Check[] {
  if (!source.identity.in_recovery) return [check('source-standby', 'source', 'ok', 'source is a primary', { facts: { inRecovery: false } })];
  const facts = { inRecovery: true, hotStandbyFeedback: source.settings.get('hot_standby_feedback')?.setting ?? null, maxStandbyStreamingDelay: source.settings.get('max_standby_streaming_delay')?.setting ?? null };
  const feedback = facts.hotStandbyFeedback === 'on' ? [] : [settingFix('source', source.provider, 'hot_standby_feedback', 'on', false)];
  if (!decodes(context.kind)) {
    return [check('source-standby', 'source', 'warn', 'source is a standby: a plain copy works, but replay may cancel a long one', { facts, fix: [...feedback, settingFix('source', source.provider, 'max_standby_streaming_delay', '-1', false)] })];
  }
  if (majorOf(source) < 16) {
    return [check('source-standby', 'source', 'fail', `source is a standby of version ${majorOf(source)}: logical decoding on a standby needs 16 or newer, so it can only be copied`, { facts, fix: [advice('source', 'name the primary as --source'), advice('pgweave', 'or leave --follow and --sync out: a plain clone works')] })];
  }
  const publication = sqlFix('source', `create publication ${quoteIdent(`pgweave_${context.kind.job}`)} for table …;   -- on its primary: a standby cannot make one; clone prints it in full`);
  return [check('source-standby', 'source', 'warn', 'source is a standby: the publication must be made on its primary, and creating the slot waits for the primary to be active', { facts, fix: [publication, ...feedback, sqlFix('source', 'select pg_log_standby_snapshot();   -- on its primary, where it is idle while the slot is created')] })];
}

/** The target takes writes. */
export function targetWritableCheck(target: CheckedServer): Check[] {
  if (target.identity.in_recovery) return [check('target-writable', 'target', 'fail', 'target is a standby: it takes no writes', { facts: { inRecovery: true }, fix: advice('target', 'name the primary as --target') })];
  return [readOnlyDefault(target, 'target-writable', 'fail', 'target takes writes')];
}

/** A database that refuses writes by default has been switched over already. */
export function sourceReadOnlyCheck(source: CheckedServer): Check[] {
  return [readOnlyDefault(source, 'source-read-only', 'warn', 'source takes writes')];
}

function readOnlyDefault(server: CheckedServer, id: string, status: 'warn' | 'fail', ok: string): Check {
  const on = server.settings.get('default_transaction_read_only')?.reset_val === 'on';
  const facts = { inRecovery: server.identity.in_recovery, defaultTransactionReadOnly: on };
  if (!on) return check(id, server.side, 'ok', server.identity.in_recovery ? `${server.side} is read only: a standby` : ok, { facts });
  const database = quoteIdent(server.identity.database);
  return check(id, server.side, status, `${server.side} refuses writes: default_transaction_read_only is on${server.side === 'source' ? '. Was it switched over already?' : ''}`, { facts, fix: sqlFix(server.side, `alter database ${database} reset default_transaction_read_only;   -- or alter role, or alter system, wherever it was set`) });
}
