import { alwaysTriggers, eventTriggers, usableTablespaces, largeObjectCount, usedTablespaces, type AlwaysTriggerRow, type EventTriggerRow } from '../catalog/special-objects.ts';
import { displayName, quoteIdent } from '../pg/identifiers.ts';
import { advice, check, counted, sqlFix, type Check } from './check.ts';
import { decodes, type CheckedServer, type PreflightContext } from './context.ts';

/** Objects that logical replication does not carry [10, 11], and what fires when it should not [8]. */
export async function sourceObjectChecks(source: CheckedServer, context: PreflightContext): Promise<Check[]> {
  const follows = decodes(context.kind);
  const checks: Check[] = [];
  const { count } = await source.session.one<{ count: number }>(largeObjectCount());
  checks.push(check('large-objects', 'source', count > 0 && follows ? 'warn' : 'ok', count === 0 ? 'no large objects' : follows ? `${counted(count, 'large object')}: changes to them are not in logical replication; they are copied again under the lock at switchover` : counted(count, 'large object'), { facts: { count } }));

  const unlogged = context.tables.filter((t) => t.persistence === 'u' && t.kind === 'r' && t.mode === 'copy');
  const items = unlogged.map((t) => ({ subject: displayName(t.schema, t.name), note: 'unlogged', ...(follows ? { fix: sqlFix('source', `alter table ${displayName(t.schema, t.name)} set logged;   -- to have it follow`) } : {}) }));
  checks.push(check('unlogged-tables', 'source', unlogged.length > 0 && follows ? 'warn' : 'ok', unlogged.length === 0 ? 'no unlogged tables' : follows ? `${counted(unlogged.length, 'unlogged table')}: changes are not in the WAL; copied again under the lock at switchover` : counted(unlogged.length, 'unlogged table'), { facts: { tables: items.map((i) => i.subject) }, items }));

  const triggers = await source.session.query<AlwaysTriggerRow>(alwaysTriggers());
  checks.push(check('always-triggers', 'source', triggers.length > 0 ? 'warn' : 'ok', triggers.length === 0 ? 'no triggers or rules that fire for replicated rows' : `${counted(triggers.length, 'trigger or rule', 'triggers or rules')} will fire for replicated rows on the target too: what they do is done twice`, {
    facts: { count: triggers.length },
    items: triggers.map((t) => ({
      subject: displayName(t.schema, t.table), note: `${t.kind} ${t.name} is enabled ${t.enabled === 'A' ? 'always' : 'for replicas'}`,
      fix: sqlFix('target', `alter table ${displayName(t.schema, t.table)} disable ${t.kind} ${quoteIdent(t.name)};   -- after the schema is restored; enable it again at switchover`),
    })),
  }));

  const foreign = context.tables.filter((t) => t.kind === 'f');
  if (foreign.length > 0) checks.push(check('foreign-tables', 'source', 'warn', `${counted(foreign.length, 'foreign table')}: their definitions are copied, their rows stay where they are`, { facts: { tables: foreign.length }, items: foreign.map((t) => ({ subject: displayName(t.schema, t.name), note: 'foreign table' })), fix: advice('target', 'check that the target reaches the foreign servers, and user mappings: passwords in them are not copied where they cannot be read') }));
  return checks;
}

/** Event triggers on the target would fire for every CREATE of the clone. */
export async function targetEventTriggerCheck(target: CheckedServer): Promise<Check[]> {
  const found = await target.session.query<EventTriggerRow>(eventTriggers());
  // Services install their own; those are harmless to them.
  if (found.length === 0 || target.provider !== 'self-hosted') return [];
  return [check('event-triggers', 'target', 'warn', `${counted(found.length, 'event trigger')} on the target will fire while the schema is created`, { facts: { names: found.map((e) => e.name) }, items: found.map((e) => ({ subject: e.name, note: `on ${e.event}`, fix: sqlFix('target', `alter event trigger ${quoteIdent(e.name)} disable;`) })) })];
}

export async function tablespaceCheck(source: CheckedServer, target: CheckedServer): Promise<Check[]> {
  const used = await source.session.query<{ name: string; relations: number }>(usedTablespaces());
  if (used.length === 0) return [];
  const known = new Set((await target.session.query<{ name: string }>(usableTablespaces())).map((t) => t.name));
  const missing = used.filter((t) => !known.has(t.name));
  const facts = { used: used.map((t) => t.name), missing: missing.map((t) => t.name) };
  if (missing.length === 0) return [check('tablespaces', 'both', 'ok', `${counted(used.length, 'tablespace')} of the source ${used.length === 1 ? 'is' : 'are'} there on the target and used`, { facts })];
  return [check('tablespaces', 'both', 'warn', `${counted(missing.length, 'tablespace')} of the source ${missing.length === 1 ? 'is' : 'are'} missing on the target, or its role may not use them: what lies there goes to the default one`, {
    facts, items: missing.map((t) => ({ subject: t.name, note: counted(t.relations, 'relation'), fix: sqlFix('target', `create tablespace ${quoteIdent(t.name)} location '…';   -- or: grant create on tablespace ${quoteIdent(t.name)} to ${quoteIdent(target.session.spec.user)};`) })),
  })];
}
