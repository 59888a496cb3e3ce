import { throwIfAborted } from '../core/abort.ts';
import { errorMessage } from '../core/errors.ts';
import type { Emit } from '../core/events.ts';
import { quoteIdent, quoteLiteral } from '../pg/identifiers.ts';
import type { Session } from '../pg/session.ts';
import { isConnectionLoss } from '../pg/sqlstate.ts';

interface LargeObjectRow {
  readonly oid: number;
  readonly owner: string;
  readonly comment: string | null;
  readonly grants: readonly { readonly grantee: string | null; readonly privilege: string; readonly grantable: boolean }[];
}

/** Each changes one object and takes a lock on it until the batch is committed. */
const batch = 500;

/**
 * Gives large objects of the target the owners, privileges and comments of the source's, after their bytes are there (copy/large-objects.ts). Safe to run again. Returns how many
 * statements failed: a role that is missing or a privilege that may not be given is one warning for all, not an error.
 */
export async function restoreLargeObjectAttributes(source: Session, target: Session, options: { readonly emit: Emit; readonly owners?: boolean; readonly privileges?: boolean; readonly signal?: AbortSignal | undefined }): Promise<number> {
  const { user } = await target.one<{ user: string }>('select current_user::text as user');
  let failed = 0;
  let firstError = '';
  for (let after = 0; ; ) {
    throwIfAborted(options.signal);
    const rows = await source.query<LargeObjectRow>(attributesAfter(after));
    if (rows.length === 0) break;
    after = rows.at(-1)!.oid;
    const statements = rows.flatMap((row) => statementsFor(row, user, options));
    if (statements.length === 0) continue;
    try {
      await target.query(['begin', ...statements, 'commit'].join('; '));
    } catch (error) {
      if (isConnectionLoss(error)) throw error;
      await target.query('rollback');
      for (const statement of statements) {
        try {
          await target.query(statement);
        } catch (single) {
          if (isConnectionLoss(single)) throw single;
          failed += 1;
          firstError ||= errorMessage(single);
        }
      }
    }
  }
  if (failed > 0) options.emit({ type: 'warning', code: 'large-object-attributes', message: `${failed} owners, privileges or comments of large objects could not be set: ${firstError}`, hint: 'Make the roles on the target, or connect with a role that may do this, and run the command again.' });
  return failed;
}

function attributesAfter(oid: number) {
  return {
    text: `
      select l.oid, o.rolname::text as owner, d.description as comment,
             (select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('grantee', g.rolname, 'privilege', a.privilege_type, 'grantable', a.is_grantable)), '[]'::json)
                from pg_catalog.aclexplode(l.lomacl) a left join pg_catalog.pg_roles g on g.oid = a.grantee where a.grantee <> l.lomowner) as grants
        from pg_catalog.pg_largeobject_metadata l join pg_catalog.pg_roles o on o.oid = l.lomowner
        left join pg_catalog.pg_description d on d.classoid = 'pg_catalog.pg_largeobject'::pg_catalog.regclass and d.objoid = l.oid and d.objsubid = 0
       where l.oid > $1::pg_catalog.oid order by l.oid limit ${batch}`,
    values: [oid],
  };
}

function statementsFor(row: LargeObjectRow, user: string, options: { readonly owners?: boolean; readonly privileges?: boolean }): string[] {
  const out: string[] = [];
  if (options.privileges !== false) {
    for (const { grantee, privilege, grantable } of row.grants) out.push(`grant ${privilege.toLowerCase()} on large object ${row.oid} to ${grantee === null ? 'public' : quoteIdent(grantee)}${grantable ? ' with grant option' : ''}`);
  }
  if (row.comment !== null) out.push(`comment on large object ${row.oid} is ${quoteLiteral(row.comment)}`);
  // Last: who gave an object away may not grant on it any more.
  if (options.owners !== false && row.owner !== user) out.push(`alter large object ${row.oid} owner to ${quoteIdent(row.owner)}`);
  return out;
}
