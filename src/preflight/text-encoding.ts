import { columnsInDefaultCollation, databaseLocale, systemCollations, usedCollations, type DatabaseLocaleRow, type UsedCollationRow } from '../catalog/collations.ts';
import { quoteIdent } from '../pg/identifiers.ts';
import { advice, check, counted, sqlFix, type Check, type CheckItem } from './check.ts';
import type { CheckedServer } from './context.ts';

/** Encodings [33] and the rules by which text is sorted [15]. */
export async function textChecks(source: CheckedServer, target: CheckedServer): Promise<Check[]> {
  const here = await source.session.one<DatabaseLocaleRow>(databaseLocale(source.session.serverVersion));
  const there = await target.session.one<DatabaseLocaleRow>(databaseLocale(target.session.serverVersion));
  return [encodingCheck(here, there, target), ...(await localeChecks(source, here, there)), ...(await collationChecks(source, target))];
}

function encodingCheck(here: DatabaseLocaleRow, there: DatabaseLocaleRow, target: CheckedServer): Check {
  const facts = { source: here.encoding, target: there.encoding };
  const recreate = sqlFix('target', `create database ${quoteIdent(target.identity.database)} template template0 encoding '${here.encoding}';   -- after dropping the empty one`);
  if (here.encoding === there.encoding) {
    if (here.encoding === 'SQL_ASCII') return check('encoding', 'both', 'warn', 'both databases are SQL_ASCII: bytes pass through unchecked, and pgweave does not know what they mean', { facts });
    return check('encoding', 'both', 'ok', `encoding ${here.encoding} on both sides`, { facts });
  }
  if (here.encoding === 'SQL_ASCII') {
    return check('encoding', 'both', 'fail', `source is SQL_ASCII, which holds any bytes; target is ${there.encoding}, which refuses bytes that are not valid ${there.encoding}`, { facts, fix: [recreate, advice('source', `or make sure that every text is valid ${there.encoding}, and make the target with that encoding knowingly`)] });
  }
  if (there.encoding === 'SQL_ASCII') return check('encoding', 'both', 'fail', `target is SQL_ASCII: text of a ${here.encoding} database would lose its meaning there`, { facts, fix: recreate });
  if (there.encoding === 'UTF8') return check('encoding', 'both', 'warn', `encoding ${here.encoding} here, UTF8 there: text is converted on the way`, { facts });
  return check('encoding', 'both', 'fail', `encoding ${here.encoding} here, ${there.encoding} there: characters that ${there.encoding} lacks make the copy fail`, { facts, fix: recreate });
}

const bytewise = (l: DatabaseLocaleRow) => ['C', 'POSIX'].includes(l.provider === 'libc' ? l.collate : (l.locale ?? ''));
const name = (l: DatabaseLocaleRow) => (l.provider === 'libc' ? l.collate : `${l.provider} ${l.locale ?? ''}`.trim());

async function localeChecks(source: CheckedServer, here: DatabaseLocaleRow, there: DatabaseLocaleRow): Promise<Check[]> {
  const checks: Check[] = [];
  const facts = { source: here, target: there };
  if (here.recorded_version !== null && here.actual_version !== null && here.recorded_version !== here.actual_version) {
    checks.push(check('collation-drift', 'source', 'warn', `the source's database was made with collation version ${here.recorded_version} and runs on ${here.actual_version}: its indexes on text may be wrong now`, { facts, fix: sqlFix('source', `reindex database ${quoteIdent(source.identity.database)}; alter database ${quoteIdent(source.identity.database)} refresh collation version;`) }));
  }
  if (bytewise(here) && bytewise(there)) return [...checks, check('collation', 'both', 'ok', 'text is sorted by bytes on both sides', { facts })];
  const { columns } = await source.session.one<{ columns: number }>(columnsInDefaultCollation());
  const consequence = `Indexes are built anew, so this is safe; the sort order of ${counted(columns, 'column')} may change`;
  if (name(here) !== name(there) || here.provider !== there.provider || here.ctype !== there.ctype) {
    const what = name(here) === name(there) ? `ctype ${here.ctype} here, ${there.ctype} there` : `${name(here)} here, ${name(there)} there`;
    return [...checks, check('collation', 'both', 'warn', `collation differs: ${what}. ${consequence}`, { facts: { ...facts, columns }, fix: sqlFix('target', createLike(here)) })];
  }
  if (here.actual_version !== null && there.actual_version !== null && here.actual_version !== there.actual_version) {
    return [...checks, check('collation', 'both', 'warn', `collation version differs: ${here.provider} ${here.actual_version} here, ${there.actual_version} there. ${consequence}`, { facts: { ...facts, columns } })];
  }
  return [...checks, check('collation', 'both', 'ok', `collation ${name(here)} on both sides${here.actual_version === null || there.actual_version === null ? ' (a version is not to be known before PostgreSQL 15)' : ''}`, { facts })];
}

function createLike(l: DatabaseLocaleRow): string {
  const provider = l.provider === 'libc' ? '' : ` locale_provider ${l.provider} ${l.provider === 'icu' ? 'icu_locale' : 'builtin_locale'} '${l.locale ?? ''}'`;
  return `create database … template template0 encoding '${l.encoding}' lc_collate '${l.collate}' lc_ctype '${l.ctype}'${provider};   -- where the same order matters`;
}

async function collationChecks(source: CheckedServer, target: CheckedServer): Promise<Check[]> {
  const used = await source.session.query<UsedCollationRow>(usedCollations());
  const ofSystem = used.filter((c) => c.schema === 'pg_catalog');
  const there = new Map((await target.session.query<{ name: string; actual_version: string | null }>(systemCollations(ofSystem.map((c) => c.name)))).map((c) => [c.name, c]));
  const missing: CheckItem[] = [];
  const differ: CheckItem[] = [];
  for (const c of ofSystem) {
    const found = there.get(c.name);
    const note = `${counted(c.columns, 'column')}, such as ${c.example}`;
    if (!found) missing.push({ subject: c.name, note, fix: advice('target', c.provider === 'icu' ? 'the target needs a PostgreSQL built with ICU' : `install the locale on the target's machine, then: select pg_import_system_collations('pg_catalog');`) });
    else if (c.actual_version !== null && found.actual_version !== null && c.actual_version !== found.actual_version) differ.push({ subject: c.name, note: `${note}: version ${c.actual_version} here, ${found.actual_version} there` });
  }
  const drifted = used.filter((c) => c.recorded_version !== null && c.actual_version !== null && c.recorded_version !== c.actual_version);
  const facts = { used: used.map((c) => `${c.schema}.${c.name}`), missing: missing.map((m) => m.subject) };
  const checks: Check[] = [];
  if (missing.length > 0) checks.push(check('column-collations', 'both', 'fail', `${counted(missing.length, 'collation')} that columns use ${missing.length === 1 ? 'is' : 'are'} missing on the target`, { facts, items: missing }));
  else if (differ.length > 0) checks.push(check('column-collations', 'both', 'warn', `${counted(differ.length, 'collation')} that columns use ${differ.length === 1 ? 'has' : 'have'} another version on the target; indexes are built anew, so this is safe`, { facts, items: differ }));
  else if (used.length > 0) checks.push(check('column-collations', 'both', 'ok', `${counted(used.length, 'collation')} that columns use ${used.length === 1 ? 'is' : 'are'} there on the target or come with the schema`, { facts }));
  if (drifted.length > 0) {
    checks.push(check('column-collation-drift', 'source', 'warn', `${counted(drifted.length, 'collation')} of the source changed version since its indexes were built: indexes on such columns may be wrong`, {
      facts: { drifted: drifted.length }, items: drifted.map((c) => ({ subject: `${c.schema}.${c.name}`, note: `${c.recorded_version} then, ${c.actual_version} now`, fix: sqlFix('source', `alter collation ${quoteIdent(c.schema)}.${quoteIdent(c.name)} refresh version;   -- after reindexing what uses it`) })),
    }));
  }
  return checks;
}
