import { canReadPasswords, memberships, parameterPrivileges, roles, type MembershipRow, type ParameterPrivilegeRow, type RoleRow } from '../catalog/roles.ts';
import { errorMessage } from '../core/errors.ts';
import { rememberSecret } from '../core/redact.ts';
import { quoteIdent, quoteLiteral } from '../pg/identifiers.ts';
import type { Session } from '../pg/session.ts';
import { sqlstate, sqlstateOf } from '../pg/sqlstate.ts';
import type { Statement } from './plan.ts';
import { restoreError } from './restore-error.ts';
import { restoreStatements, retryingInternal, type RestoreContext } from './restore.ts';
import { settingSql } from './settings-sql.ts';

/** Roles of the source that go to the target, as the catalogs tell (pg_dumpall needs pg_authid, which managed services hide). */
export interface RoleSet {
  readonly roles: readonly RoleRow[];
  readonly memberships: readonly MembershipRow[];
  readonly parameters: readonly ParameterPrivilegeRow[];
  /** False: hashes are hidden here, so roles are made without passwords. */
  readonly passwordsReadable: boolean;
  /** Roles that this database does not name and that are not taken, for the report. */
  readonly notTaken: readonly string[];
}

/** Roles that a provider keeps for itself; its own servers have them, others must not get them. */
const providersOwn = /^(rds|rdsadmin|rds_.*|cloudsql.*|alloydb.*|azure.*|azuresu|aurora.*|neon_.*|cloud_admin|supabase_.*|authenticator|anon|authenticated|service_role|dashboard_user|pgbouncer|pgsodium_.*)$/;

/**
 * Reads roles. `used` (default): those that this database names (owners, privileges, policies, settings, user mappings), what they are members of, and their members, so that
 * whoever could work with the database still can. `all`: every role of the server but the predefined and the provider's own.
 */
export async function readRoles(source: Session, which: 'used' | 'all' = 'used'): Promise<RoleSet> {
  const { allowed } = await source.one<{ allowed: boolean }>(canReadPasswords());
  const every = await source.query<RoleRow>(roles(allowed));
  for (const role of every) rememberSecret(role.password ?? undefined);
  const edges = await source.query<MembershipRow>(memberships(source.serverVersion));
  const parameters = source.serverVersion >= 150_000 ? await source.query<ParameterPrivilegeRow>(parameterPrivileges()) : [];
  const taken = which === 'all' ? new Set(every.map((role) => role.name)) : closure(every, edges);
  const chosen = every.filter((role) => taken.has(role.name) && !providersOwn.test(role.name));
  const names = new Set(chosen.map((role) => role.name));
  return {
    roles: chosen, memberships: edges.filter((edge) => names.has(edge.member) && (names.has(edge.role) || edge.role.startsWith('pg_'))), parameters: parameters.filter((row) => row.grantee !== null && names.has(row.grantee)),
    passwordsReadable: allowed, notTaken: every.filter((role) => !names.has(role.name)).map((role) => role.name),
  };
}

function closure(every: readonly RoleRow[], edges: readonly MembershipRow[]): Set<string> {
  const taken = new Set(every.filter((role) => role.used).map((role) => role.name));
  const spread = (from: 'role' | 'member', to: 'role' | 'member') => {
    for (let before = -1; before !== taken.size; ) {
      before = taken.size;
      for (const edge of edges) if (taken.has(edge[from])) taken.add(edge[to]);
    }
  };
  // Members first, then the groups of all of these: a group reached only from above says nothing about this database.
  spread('role', 'member');
  spread('member', 'role');
  return taken;
}

/**
 * Makes the roles that the target lacks, with the attributes that are permitted there (SUPERUSER, REPLICATION, BYPASSRLS are left off with a warning where not [hard case 14]), then
 * memberships, settings, comments and parameter privileges. A role that is there already keeps its attributes and its password.
 */
export async function restoreRoles(target: Session, set: RoleSet, context: RestoreContext): Promise<{ readonly made: number; readonly present: number }> {
  const existing = new Set((await target.query<{ name: string }>('select rolname::text as name from pg_catalog.pg_roles')).map((row) => row.name));
  // Since 16 whoever has CREATEROLE may neither become nor act for a role that it made, unless it asks for that first; without it no object could be given to its owner.
  if (target.serverVersion >= 160_000) await target.query(`set createrole_self_grant = 'set, inherit'`);
  let made = 0;
  const present = set.roles.filter((role) => existing.has(role.name));
  for (const role of set.roles) if (!existing.has(role.name) && (await makeRole(target, role, context))) made += 1;
  if (!set.passwordsReadable && set.roles.some((role) => role.login && !existing.has(role.name))) {
    context.emit({ type: 'warning', code: 'passwords-hidden', message: 'the source hides password hashes from this role: roles were made without passwords', hint: 'Set them on the target: ALTER ROLE name PASSWORD …' });
  }
  const madeNames = new Set(set.roles.filter((role) => !existing.has(role.name)).map((role) => role.name));
  await restoreStatements(target, [...membershipStatements(set.memberships, target.serverVersion), ...attributeStatements(set, madeNames, target.serverVersion)], context);
  return { made, present: present.length };
}

const statement = (kind: string, name: string, sql: string): Statement => ({ key: `${kind} ${name} ${sql}`, phase: 'pre-data', sql, object: { kind, schema: undefined, name }, table: undefined, tolerate: 'always' });

interface Attempt {
  readonly without: string;
  readonly sql: string;
}

/** From everything to the least: each attempt leaves off what the one before may have failed for. */
function attempts(role: RoleRow): Attempt[] {
  const flag = (on: boolean, word: string) => (on ? word : `no${word}`);
  const rest = [flag(role.inherit, 'inherit'), flag(role.login, 'login'), ...(role.connection_limit >= 0 ? [`connection limit ${role.connection_limit}`] : []), ...(role.valid_until === null ? [] : [`valid until ${quoteLiteral(role.valid_until)}`])];
  const powers = [...(role.superuser ? ['superuser'] : []), ...(role.replication ? ['replication'] : []), ...(role.bypass_rls ? ['bypassrls'] : [])];
  const powersLeft = powers.filter((power) => power !== 'superuser');
  const making = [...(role.create_role ? ['createrole'] : []), ...(role.create_db ? ['createdb'] : [])];
  const password = role.password === null ? [] : [`password ${quoteLiteral(role.password)}`];
  const sql = (...words: string[]) => `create role ${quoteIdent(role.name)} ${words.join(' ')}`;
  const options: Attempt[] = [{ without: '', sql: sql(...powers, ...making, ...rest, ...password) }];
  if (role.superuser) options.push({ without: 'SUPERUSER', sql: sql(...powersLeft, ...making, ...rest, ...password) });
  if (powersLeft.length > 0) options.push({ without: powers.join(', ').toUpperCase(), sql: sql(...making, ...rest, ...password) });
  if (making.length > 0) options.push({ without: [...powers, ...making].join(', ').toUpperCase(), sql: sql(...rest, ...password) });
  if (password.length > 0) options.push({ without: [...powers, ...making, 'its password'].join(', '), sql: sql(...rest) });
  return options;
}

async function makeRole(target: Session, role: RoleRow, context: RestoreContext): Promise<boolean> {
  let refused: unknown;
  for (const attempt of attempts(role)) {
    try {
      await retryingInternal(context.signal, () => target.query(attempt.sql));
      if (attempt.without !== '') context.emit({ type: 'warning', code: 'role-attributes', message: `role ${role.name} was made without ${attempt.without}, which may not be given on the target`, hint: 'Give it there with a role that may, where it is needed.' });
      return true;
    } catch (error) {
      if (sqlstateOf(error) === sqlstate.duplicateObject || sqlstateOf(error) === sqlstate.uniqueViolation) return false;
      // The hash is in the statement: only the server's words may get out.
      if (sqlstateOf(error) !== sqlstate.insufficientPrivilege && sqlstateOf(error) !== sqlstate.featureNotSupported) throw restoreError(error, { ...statement('role', role.name, `create role ${quoteIdent(role.name)} …`) });
      refused = error;
    }
  }
  context.emit({ type: 'warning', code: 'role-not-made', message: `role ${role.name} could not be made on the target: ${errorMessage(refused)}`, hint: `Make it with a role that may: CREATE ROLE ${quoteIdent(role.name)}${role.login ? ' LOGIN' : ''}; objects that it owns stay with the role that restores.` });
  return false;
}

function membershipStatements(rows: readonly MembershipRow[], targetVersion: number): Statement[] {
  return rows.map((row) => {
    const options = targetVersion >= 160_000 && row.inherit !== null ? ` with admin ${row.admin}, inherit ${row.inherit}, set ${row.set}` : row.admin ? ' with admin option' : '';
    return statement('membership', `${row.member} in ${row.role}`, `grant ${quoteIdent(row.role)} to ${quoteIdent(row.member)}${options}`);
  });
}

function attributeStatements(set: RoleSet, made: ReadonlySet<string>, targetVersion: number): Statement[] {
  const of = set.roles.filter((role) => made.has(role.name)).flatMap((role) => [
    ...role.settings.map((line) => statement('setting of role', role.name, `alter role ${quoteIdent(role.name)} set ${settingSql(line)}`)),
    ...(role.comment === null ? [] : [statement('comment on role', role.name, `comment on role ${quoteIdent(role.name)} is ${quoteLiteral(role.comment)}`)]),
    ...role.labels.map(({ provider, label }) => statement('security label on role', role.name, `security label for ${quoteIdent(provider)} on role ${quoteIdent(role.name)} is ${quoteLiteral(label)}`)),
  ]);
  if (targetVersion < 150_000) return of;
  const parameters = set.parameters.map((row) => statement('grant on parameter', row.parameter, `grant ${row.privilege.toLowerCase()} on parameter ${row.parameter.split('.').map(quoteIdent).join('.')} to ${quoteIdent(row.grantee!)}${row.grantable ? ' with grant option' : ''}`));
  return [...of, ...parameters];
}
