import { databaseAttributes, databaseSettings, type DatabaseAttributesRow, type DatabaseSettingRow } from '../catalog/database-attributes.ts';
import { quoteIdent, quoteLiteral } from '../pg/identifiers.ts';
import type { Session } from '../pg/session.ts';
import type { Statement } from './plan.ts';
import { restoreStatements, type RestoreContext } from './restore.ts';
import { settingName, settingSql } from './settings-sql.ts';

/** What belongs to the database itself and is in no schema dump: settings, privileges, comment. Owner, encoding and locale are CREATE DATABASE's affair. */
export interface DatabaseProperties {
  readonly attributes: DatabaseAttributesRow;
  readonly settings: readonly DatabaseSettingRow[];
}

export async function readDatabaseProperties(source: Session): Promise<DatabaseProperties> {
  return { attributes: await source.one<DatabaseAttributesRow>(databaseAttributes()), settings: await source.query<DatabaseSettingRow>(databaseSettings()) };
}

/** A switchover leaves this on its old source; a copy of it must take writes. */
const neverCopied = new Set(['default_transaction_read_only']);

/**
 * Gives the target's database what the source's has. Each is a warning where it is not permitted or not known there: rows and schema do not depend on it.
 * `privileges: false` leaves GRANT and REVOKE out. Settings count for sessions that begin later, so run this last.
 */
export async function restoreDatabaseProperties(target: Session, properties: DatabaseProperties, context: RestoreContext, options: { readonly privileges?: boolean } = {}): Promise<void> {
  const name = quoteIdent(target.spec.database);
  const statement = (kind: string, about: string, sql: string): Statement => ({ key: `${kind} ${about} ${sql}`, phase: 'post-data', sql, object: { kind, schema: undefined, name: about }, table: undefined, tolerate: 'always' });
  const { attributes, settings } = properties;
  const statements = settings.flatMap(({ role, settings: lines }) => lines.filter((line) => !neverCopied.has(settingName(line))).map((line) => (role === null
    ? statement('database setting', settingName(line), `alter database ${name} set ${settingSql(line)}`)
    : statement('setting of role in database', `${role} ${settingName(line)}`, `alter role ${quoteIdent(role)} in database ${name} set ${settingSql(line)}`))));
  if (attributes.comment !== null) statements.push(statement('comment on database', target.spec.database, `comment on database ${name} is ${quoteLiteral(attributes.comment)}`));
  if (attributes.explicit && options.privileges !== false) {
    // PUBLIC begins with CONNECT and TEMPORARY everywhere: what the source took away has to be taken away here.
    statements.push(statement('privileges of database', 'public', `revoke all on database ${name} from public`));
    for (const { grantee, privilege, grantable } of attributes.privileges) {
      statements.push(statement('privileges of database', grantee ?? 'public', `grant ${privilege.toLowerCase()} on database ${name} to ${grantee === null ? 'public' : quoteIdent(grantee)}${grantable ? ' with grant option' : ''}`));
    }
  }
  await restoreStatements(target, statements, context);
}
