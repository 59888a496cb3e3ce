import { filterPlace, type FilterPlace } from '../catalog/filter-place.ts';
import type { PreflightTableRow } from '../catalog/preflight-tables.ts';
import { parsePredicate } from '../core/selection/predicate.ts';
import { displayName, quoteIdent } from '../pg/identifiers.ts';
import { advice, check, counted, flagFix, sqlFix, type Check, type CheckItem } from './check.ts';
import { decodes, type PreflightContext } from './context.ts';

/**
 * Replica identities [1]: once a table without one is published, the source itself refuses UPDATE and DELETE on it. Partitions count, since WAL is written by
 * them, not by their root.
 */
export async function identityChecks(context: PreflightContext): Promise<Check[]> {
  const published = context.tables.filter((t) => t.kind === 'r' && t.persistence === 'p' && t.mode === 'copy');
  const bare = published.filter((t) => t.replica_identity !== 'f' && !t.has_identity_index);
  const agreed = bare.filter((t) => context.kind.insertOnly?.(t) === true);
  const without = bare.filter((t) => !agreed.includes(t));
  const full = published.filter((t) => t.replica_identity === 'f');
  const facts = { tables: published.length, withoutIdentity: without.map((t) => displayName(t.schema, t.name)), full: full.map((t) => displayName(t.schema, t.name)) };
  const checks: Check[] = [];
  if (without.length === 0) checks.push(check('replica-identity', 'source', 'ok', 'every table has a replica identity', { facts }));
  else if (!decodes(context.kind)) {
    checks.push(check('replica-identity', 'source', 'warn', `${counted(without.length, 'table')} without a replica identity: no matter for a plain clone, but --follow and --sync would need one`, { facts, items: without.map(identityItem) }));
  } else {
    checks.push(check('replica-identity', 'source', 'fail', `${counted(without.length, 'table')} ${without.length === 1 ? 'has' : 'have'} no replica identity. Publishing ${without.length === 1 ? 'it' : 'them'} would make UPDATE and DELETE fail on the source.`, {
      facts, items: without.map(identityItem), fix: [flagFix('--exclude-tables or --schema-only-tables for those that need not follow'), flagFix('--insert-only for those of which inserts alone shall be replicated')],
    }));
  }
  if (agreed.length > 0 && decodes(context.kind)) {
    checks.push(check('insert-only', 'source', 'warn', `${counted(agreed.length, 'table')} of which only inserts are replicated: UPDATE and DELETE there do not reach the target`, { facts: { tables: agreed.map((t) => displayName(t.schema, t.name)) }, items: agreed.map(identityItem) }));
  }
  if (full.length > 0 && decodes(context.kind)) {
    checks.push(check('replica-identity-full', 'source', 'warn', `${counted(full.length, 'table')} with REPLICA IDENTITY FULL: every UPDATE and DELETE logs and looks up whole rows`, {
      facts: { tables: facts.full },
      items: full.map((t) => ({ subject: displayName(t.schema, t.name), note: `${t.has_primary_key ? 'a primary key is there' : t.identity_candidates.length > 0 ? `unique index ${t.identity_candidates[0]} fits` : 'no key'}${t.columns_without_equality.length > 0 ? `; compared as text: ${t.columns_without_equality.join(', ')}` : ''}`,
        ...(t.has_primary_key && t.identity_candidates.length > 0 ? { fix: sqlFix('source', `alter table ${displayName(t.schema, t.name)} replica identity default;`) } : t.identity_candidates.length > 0 ? { fix: usingIndex(t, t.identity_candidates[0]!) } : {}) })),
    }));
  }
  checks.push(...(context.kind.mode === 'follow' ? await streamFilterChecks(context, published) : await publishedFilterChecks(context, published.filter((t) => t.where !== undefined), bare)));
  return checks;
}

/** Row filters under pgweave's own stream [50]: the source applies those that it can, pgweave the others. */
async function streamFilterChecks({ source }: PreflightContext, published: PreflightContext['tables']): Promise<Check[]> {
  const placed = source === undefined ? [] : await Promise.all(published.flatMap(async (t) => (t.where === undefined ? [] : [{ subject: displayName(t.schema, t.name), place: await filterPlace(t, t.where, source.session, t.excludeColumns) }]))).then((all) => all.flat());
  if (placed.length === 0) return [];
  const by = (who: FilterPlace['by']) => placed.filter(({ place }) => place.by === who).map(({ subject }) => subject);
  const facts = { bySource: by('source'), byPgweave: by('pgweave'), byNobody: by('nobody') };
  const items = placed.flatMap(({ subject, place }): CheckItem[] => (place.by === 'source' ? [] : place.by === 'pgweave' ? [{ subject, note: `filtered by pgweave: ${place.because}` }] : [{ subject, note: place.text, fix: advice('source', place.fix) }]));
  if (facts.byNobody.length > 0) return [check('row-filters', 'source', 'fail', `${counted(facts.byNobody.length, 'row filter')} that neither the source nor pgweave can apply to the stream`, { facts, items })];
  if (facts.byPgweave.length > 0) return [check('row-filters', 'source', 'warn', `${counted(facts.byPgweave.length, 'row filter')} applied by pgweave: the source sends all changes of ${facts.byPgweave.length === 1 ? 'that table' : 'those tables'}`, { facts, items })];
  return [check('row-filters', 'source', 'ok', `${counted(placed.length, 'row filter')} applied by the source as it decodes`, { facts })];
}

/** Row filters of a native publication. */
async function publishedFilterChecks(context: PreflightContext, withFilter: PreflightContext['tables'], bare: PreflightContext['tables']): Promise<Check[]> {
  const checks: Check[] = [];
  if (withFilter.length > 0 && context.source && context.source.session.serverVersion < 150_000 && decodes(context.kind)) {
    checks.push(check('row-filter-version', 'source', 'fail', `${counted(withFilter.length, 'row filter')}: publications have them from PostgreSQL 15 on`, {
      facts: { tables: withFilter.map((t) => displayName(t.schema, t.name)) }, fix: advice('pgweave', 'follow with pgweave itself, which filters on every version: clone --follow'),
    }));
  }
  // Of a table without an identity inserts alone are published, and those by any column.
  const filtered = await filterItems(withFilter.filter((t) => !bare.includes(t)));
  if (filtered.length > 0) {
    checks.push(check('row-filter-columns', 'source', decodes(context.kind) ? 'fail' : 'warn', `${counted(filtered.length, 'row filter')} on columns outside the replica identity: ${decodes(context.kind) ? 'publishing them would make UPDATE and DELETE fail on the source' : 'no matter for a plain clone, and --follow filters them itself; --sync would need them in it'}`, { facts: { tables: filtered.map((i) => i.subject) }, items: filtered }));
  }
  return checks;
}

/** Row filters [50]: the source checks the old row by its identity columns alone (documentation, "Row Filters"). */
async function filterItems(tables: PreflightContext['tables']): Promise<CheckItem[]> {
  const items: CheckItem[] = [];
  for (const t of tables) {
    if (t.where === undefined) continue;
    const outside = (await parsePredicate(t.where)).columns.filter((column) => !t.identity_columns.includes(column));
    const subject = displayName(t.schema, t.name);
    if (outside.length > 0) items.push({ subject, note: `${outside.join(', ')} outside the identity`, fix: sqlFix('source', `alter table ${subject} replica identity full;`) });
  }
  return items;
}

function identityItem(t: PreflightTableRow): CheckItem {
  const subject = displayName(t.schema, t.name);
  const candidate = t.identity_candidates[0];
  if (candidate !== undefined) return { subject, note: `${t.replica_identity === 'n' ? 'identity is set to nothing; ' : ''}unique index ${candidate} fits`, fix: usingIndex(t, candidate) };
  const why = t.has_primary_key ? 'its primary key is deferrable and cannot serve' : t.nullable_candidates.length > 0 ? `unique index ${t.nullable_candidates[0]} would fit if its columns were NOT NULL` : 'no unique index';
  const equality = t.columns_without_equality.length > 0 ? `; rows would be told apart by their text, for: ${t.columns_without_equality.join(', ')}` : '';
  return { subject, note: `${why}${equality}`, fix: sqlFix('source', `alter table ${subject} replica identity full;`) };
}

function usingIndex(t: PreflightTableRow, index: string) {
  return sqlFix('source', `alter table ${displayName(t.schema, t.name)} replica identity using index ${/^[a-z_][a-z0-9_$]*$/.test(index) ? index : quoteIdent(index)};`);
}
