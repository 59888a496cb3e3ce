import { knownRoles, objectOwners, type KnownRoleRow, type OwnerRow } from '../catalog/role-rights.ts';
import { displayName, quoteIdent } from '../pg/identifiers.ts';
import { sqlstate, sqlstateOf } from '../pg/sqlstate.ts';
import { advice, check, counted, flagFix, sqlFix, type Check, type CheckItem } from './check.ts';
import { decodes, majorOf, type CheckedServer, type PreflightContext } from './context.ts';
import { adminRoles, providerNames } from './provider.ts';
import { adminFix, replicaRoleFix, replicationFix } from './provider-fixes.ts';

/** Superuser, or the role that the service puts in its place. */
export function isAdmin(server: CheckedServer): boolean {
  const admin = adminRoles[server.provider];
  return server.rights.superuser || (admin !== undefined && (server.rights.member_of.includes(admin) || server.rights.role === admin));
}

/** What the role needs on the source: read everything; to follow: replicate and publish. */
export function sourceRightsChecks(source: CheckedServer, context: PreflightContext): Check[] {
  const { rights, provider } = source;
  const role = quoteIdent(rights.role);
  const checks: Check[] = [];
  const unreadable: CheckItem[] = [];
  const hidden: CheckItem[] = [];
  const notOwned: CheckItem[] = [];
  const schemas = new Set<string>();
  for (const t of context.tables) {
    if (t.kind === 'f') continue;
    const subject = displayName(t.schema, t.name);
    if (!t.schema_usage && !schemas.has(t.schema)) {
      schemas.add(t.schema);
      unreadable.push({ subject: `schema ${quoteIdent(t.schema)}`, note: 'no USAGE', fix: sqlFix('source', `grant usage on schema ${quoteIdent(t.schema)} to ${role};`) });
    }
    if (!t.can_select && t.kind === 'r' && t.mode === 'copy') unreadable.push({ subject, note: 'no SELECT', fix: sqlFix('source', `grant select on ${displayName(t.schema, t.name)} to ${role};`) });
    if (t.row_security && t.kind === 'r' && t.mode === 'copy') hidden.push({ subject, note: 'row security would hide rows' });
    if (!t.owned && t.persistence === 'p' && t.mode === 'copy') notOwned.push({ subject, note: `owned by ${t.owner}`, fix: sqlFix('source', `grant ${quoteIdent(t.owner)} to ${role};`) });
  }
  const facts = { role: rights.role, superuser: rights.superuser, unreadable: unreadable.length };
  checks.push(unreadable.length > 0
    ? check('source-read', 'source', 'fail', `role ${rights.role} may not read ${counted(unreadable.length, 'table or schema', 'tables or schemas')}`, { facts, items: unreadable, fix: majorOf(source) >= 14 ? sqlFix('source', `grant pg_read_all_data to ${role};   -- all of them at once`) : [] })
    : check('source-read', 'source', 'ok', `role ${rights.role} may read every table`, { facts }));
  if (hidden.length > 0) checks.push(check('row-security', 'source', 'fail', `row security hides rows of ${counted(hidden.length, 'table')} from role ${rights.role}`, { facts: { tables: hidden.length }, items: hidden, fix: sqlFix('source', `alter role ${role} with bypassrls;`) }));
  if (!rights.reads_password_hashes && context.kind.roles) checks.push(check('password-hashes', 'source', 'warn', 'password hashes cannot be read: roles that are created on the target have no password', { facts: { readable: false }, fix: advice('target', 'set passwords after the clone: alter role … with password …;') }));
  if (!decodes(context.kind)) return checks;

  const replicates = rights.superuser || rights.replication || (['rds', 'aurora'].includes(provider) && (rights.member_of.includes('rds_replication') || rights.member_of.includes('rds_superuser')));
  checks.push(replicates
    ? check('replication-role', 'source', 'ok', `role ${rights.role} may replicate`, { facts: { role: rights.role, replication: true } })
    : check('replication-role', 'source', 'fail', `role ${rights.role} lacks replication${provider === 'self-hosted' ? '' : `. On ${providerNames[provider]}:`}`, { facts: { role: rights.role, replication: false, provider }, fix: replicationFix('source', provider, rights.role) }));
  // CREATE PUBLICATION … FOR TABLE: CREATE on the database and ownership of each table (documentation, CREATE PUBLICATION, Notes).
  const publishes = rights.superuser || (rights.create_on_database && notOwned.length === 0);
  checks.push(publishes || source.identity.in_recovery
    ? check('publication-rights', 'source', 'ok', 'role may publish the tables', { facts: { createOnDatabase: rights.create_on_database, notOwned: notOwned.length } })
    : check('publication-rights', 'source', 'fail', `role ${rights.role} may not publish: it needs ${[...(rights.create_on_database ? [] : ['CREATE on the database']), ...(notOwned.length > 0 ? [`ownership of ${counted(notOwned.length, 'table')}`] : [])].join(' and ')}`, {
      facts: { createOnDatabase: rights.create_on_database, notOwned: notOwned.length }, items: notOwned, fix: rights.create_on_database ? [] : sqlFix('source', `grant create on database ${quoteIdent(source.identity.database)} to ${role};`),
    }));
  return checks;
}

/** What the role needs on the target: create; to follow: apply without firing triggers, remember progress; to sync: subscribe. */
export async function targetRightsChecks(target: CheckedServer, context: PreflightContext): Promise<Check[]> {
  const { rights, provider } = target;
  const role = quoteIdent(rights.role);
  const checks: Check[] = [];
  const mayCreate = rights.create_on_database && rights.create_in_public;
  checks.push(mayCreate
    ? check('target-create', 'target', 'ok', `role ${rights.role} may create schemas and tables`, { facts: { createOnDatabase: true, createInPublic: true } })
    : check('target-create', 'target', 'fail', `role ${rights.role} may not create ${rights.create_on_database ? 'in schema public' : 'in the database'}`, {
      facts: { createOnDatabase: rights.create_on_database, createInPublic: rights.create_in_public },
      fix: [...(rights.create_on_database ? [] : [sqlFix('target', `grant create on database ${quoteIdent(target.identity.database)} to ${role};`)]), ...(rights.create_in_public ? [] : [sqlFix('target', `grant create on schema public to ${role};`)])],
    }));

  const replica = await maySetReplicaRole(target);
  checks.push(replica
    ? check('replica-role', 'target', 'ok', 'session_replication_role may be set: triggers and foreign keys keep still while rows are written', { facts: { allowed: true } })
    : check('replica-role', 'target', 'warn', 'session_replication_role may not be set: foreign keys are made last and triggers kept off by other means, which is slower and leaves them off until the end', { facts: { allowed: false }, fix: replicaRoleFix('target', provider, rights.role, target.session.serverVersion) }));

  if (context.kind.mode === 'follow') {
    checks.push(rights.origin_functions
      ? check('origin-rights', 'target', 'ok', 'replication origins may be used', { facts: { allowed: true } })
      : check('origin-rights', 'target', 'warn', 'replication origins may not be used: progress is kept in a row of pgweave\'s schema instead, and a way back cannot tell replicated rows by origin', {
        facts: { allowed: false },
        fix: majorOf(target) >= 14 && provider === 'self-hosted'
          ? sqlFix('target', `grant execute on function pg_catalog.pg_replication_origin_create(text), pg_catalog.pg_replication_origin_drop(text), pg_catalog.pg_replication_origin_advance(text, pg_lsn), pg_catalog.pg_replication_origin_oid(text), pg_catalog.pg_replication_origin_progress(text, boolean), pg_catalog.pg_replication_origin_session_setup(${majorOf(target) >= 19 ? 'text, integer' : 'text'}), pg_catalog.pg_replication_origin_session_reset(), pg_catalog.pg_replication_origin_session_progress(boolean), pg_catalog.pg_replication_origin_session_is_setup(), pg_catalog.pg_replication_origin_xact_setup(pg_lsn, timestamptz), pg_catalog.pg_replication_origin_xact_reset() to ${role};`)
          : adminFix('target', provider, rights.role),
      }));
  }
  if (context.kind.mode === 'sync') {
    const subscribes = isAdmin(target) || (rights.member_of.includes('pg_create_subscription') && rights.create_on_database);
    checks.push(subscribes
      ? check('subscription-rights', 'target', 'ok', 'role may create a subscription', { facts: { allowed: true } })
      : check('subscription-rights', 'target', 'fail', `role ${rights.role} may not create a subscription`, { facts: { allowed: false }, fix: majorOf(target) >= 16 && provider === 'self-hosted' ? sqlFix('target', `grant pg_create_subscription to ${role};`) : adminFix('target', provider, rights.role) }));
  }
  return checks;
}

/** Tried, since services allow it in ways of their own: set and rolled back in a transaction that writes nothing. */
async function maySetReplicaRole(target: CheckedServer): Promise<boolean> {
  try {
    await target.session.transaction(() => target.session.query('set local session_replication_role = replica'), 'begin read only');
    return true;
  } catch (error) {
    if (sqlstateOf(error) === sqlstate.insufficientPrivilege) return false;
    throw error;
  }
}

/** Roles that own objects on the source: there on the target, or can they be created? */
export async function ownerChecks(source: CheckedServer, target: CheckedServer, context: PreflightContext): Promise<Check[]> {
  const owners = await source.session.query<OwnerRow>(objectOwners());
  const known = new Map((await target.session.query<KnownRoleRow>(knownRoles(owners.map((o) => o.role), target.session.serverVersion))).map((r) => [r.role, r]));
  const missing = owners.filter((o) => !known.has(o.role));
  const foreign = owners.filter((o) => known.get(o.role)?.assignable === false && !isAdmin(target));
  const checks: Check[] = [];
  const item = (o: OwnerRow, fix: CheckItem['fix']): CheckItem => ({ subject: o.role, note: `owns ${counted(o.objects, 'object')}, such as ${o.example}`, ...(fix ? { fix } : {}) });
  const facts = { owners: owners.map((o) => o.role), missing: missing.map((o) => o.role) };
  if (!context.kind.owner) checks.push(check('owner-roles', 'both', 'ok', `owners are not kept (--no-owner): everything will belong to ${target.rights.role}`, { facts }));
  else if (missing.length === 0) checks.push(check('owner-roles', 'both', 'ok', 'every role that owns objects is there on the target', { facts }));
  else if (context.kind.roles && target.rights.create_role) checks.push(check('owner-roles', 'both', 'ok', `${counted(missing.length, 'role')} that own objects will be created on the target`, { facts, items: missing.map((o) => item(o, undefined)) }));
  else {
    checks.push(check('owner-roles', 'both', 'fail', `${counted(missing.length, 'role')} that own objects are missing on the target${context.kind.roles ? `, and role ${target.rights.role} may not create roles` : ' and --no-roles leaves them so'}`, {
      facts, items: missing.map((o) => item(o, sqlFix('target', `create role ${quoteIdent(o.role)}${o.login ? ' login' : ''};`))),
      fix: [...(context.kind.roles ? [sqlFix('target', `alter role ${quoteIdent(target.rights.role)} with createrole;`)] : []), flagFix('--no-owner (everything then belongs to the role that connects)')],
    }));
  }
  if (context.kind.owner && foreign.length > 0) {
    checks.push(check('owner-membership', 'target', 'fail', `role ${target.rights.role} may not give objects to ${counted(foreign.length, 'role')} that own some on the source`, {
      facts: { roles: foreign.map((o) => o.role) }, items: foreign.map((o) => item(o, sqlFix('target', `grant ${quoteIdent(o.role)} to ${quoteIdent(target.rights.role)};`))), fix: flagFix('--no-owner'),
    }));
  }
  return checks;
}
