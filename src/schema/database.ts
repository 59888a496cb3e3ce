import { databaseAttributes, databaseOwner, databaseSettings, type DatabaseAttributesRow, type DatabaseOwnerRow, type DatabaseSettingRow } from '../catalog/database-attributes.ts';
import { quoteIdent, quoteLiteral } from '../pg/identifiers.ts';
import type { Session } from '../pg/session.ts';
import type { Statement } from './plan.ts';
import { restoreStatements, type RestoreContext } from './restore.ts';
import { settingName, settingSql } from './settings-sql.ts';

/** What belongs to the database itself and is in no schema dump: settings, privileges, comment, security labels, connection limit, owner. Encoding and locale are CREATE DATABASE's affair. */
export interface DatabaseProperties {
  readonly attributes: DatabaseAttributesRow;
  readonly settings: readonly DatabaseSettingRow[];
}

export async function readDatabaseProperties(source: Session): Promise<DatabaseProperties> {
  return { attributes: await source.one<DatabaseAttributesRow>(databaseAttributes()), settings: await source.query<DatabaseSettingRow>(databaseSettings()) };
}

/** A switchover leaves this on its old source; a copy of it must take writes. */
const neverCopied = new Set(['default_transaction_read_only']);

export interface DatabasePropertiesOptions {
  /** False leaves GRANT and REVOKE out. Default true. */
  readonly privileges?: boolean;
  /** False leaves the owner as it is. Default true. */
  readonly owners?: boolean;
  /** False leaves the connection limit out: a stream that follows needs connections of its own. Default true. */
  readonly connectionLimit?: boolean;
}

/**
 * Gives the target's database what the source's has. Each is a warning where it is not permitted or not known there: rows and schema do not depend on it. Settings count for sessions that begin
 * later, so run this last.
 */
export async function restoreDatabaseProperties(target: Session, properties: DatabaseProperties, context: RestoreContext, options: DatabasePropertiesOptions = {}): Promise<void> {
  const name = quoteIdent(target.spec.database);
  const statement = (kind: string, about: string, sql: string): Statement => ({ key: `${kind} ${about} ${sql}`, phase: 'post-data', sql, object: { kind, schema: undefined, name: about }, table: undefined, tolerate: 'always' });
  const { attributes, settings } = properties;
  const statements = settings.flatMap(({ role, settings: lines }) => lines.filter((line) => !neverCopied.has(settingName(line))).map((line) => (role === null
    ? statement('database setting', settingName(line), `alter database ${name} set ${settingSql(line)}`)
    : statement('setting of role in database', `${role} ${settingName(line)}`, `alter role ${quoteIdent(role)} in database ${name} set ${settingSql(line)}`))));
  if (attributes.comment !== null) statements.push(statement('comment on database', target.spec.database, `comment on database ${name} is ${quoteLiteral(attributes.comment)}`));
  for (const { provider, label } of attributes.labels) statements.push(statement('security label on database', target.spec.database, `security label for ${quoteIdent(provider)} on database ${name} is ${quoteLiteral(label)}`));
  if (attributes.connection_limit >= 0) {
    if (options.connectionLimit !== false) statements.push(statement('connection limit of database', target.spec.database, `alter database ${name} connection limit ${attributes.connection_limit}`));
    else context.emit({ type: 'warning', code: 'connection-limit', message: `the source allows ${attributes.connection_limit} connections to its database; the target is left without a limit, since the stream needs some of its own`, hint: `After the switchover: ALTER DATABASE ${name} CONNECTION LIMIT ${attributes.connection_limit};` });
  }
  if (attributes.explicit && options.privileges !== false) {
    // PUBLIC begins with CONNECT and TEMPORARY everywhere: what the source took away has to be taken away here.
    statements.push(statement('privileges of database', 'public', `revoke all on database ${name} from public`));
    for (const { grantee, privilege, grantable } of attributes.privileges) {
      statements.push(statement('privileges of database', grantee ?? 'public', `grant ${privilege.toLowerCase()} on database ${name} to ${grantee === null ? 'public' : quoteIdent(grantee)}${grantable ? ' with grant option' : ''}`));
    }
  }
  if (options.owners !== false) statements.push(...(await ownerStatements(target, attributes.owner, statement)));
  await restoreStatements(target, statements, context);
}

/**
 * The owner of a database may create in its schema `public` (since 15, by role pg_database_owner), so that it matters who it is. A database that belongs to another than the role we are is
 * somebody's decision and stays with its owner. Last of all: whoever gives a database away may not alter it any more.
 */
async function ownerStatements(target: Session, owner: string, statement: (kind: string, about: string, sql: string) => Statement): Promise<Statement[]> {
  const now = await target.one<DatabaseOwnerRow>(databaseOwner(owner));
  return now.owner === owner || now.owner !== now.me || !now.may ? [] : [statement('owner of database', owner, `alter database ${quoteIdent(target.spec.database)} owner to ${quoteIdent(owner)}`)];
}
