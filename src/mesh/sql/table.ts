import { quoteIdent, quoteLiteral } from '../../pg/identifiers.ts';
import { meshObject, shortDigest } from '../names.ts';
import { factsOf, planName, type TablePlan } from '../table-plan.ts';
import { captureSql, keyList } from './table-capture.ts';
import { mergeSql, stateSql } from './table-merge.ts';
import { baselineStamp } from './core.ts';

/** What tells two definitions of a table apart: nodes whose digests differ do not understand one another. */
export function planDigest(plan: TablePlan): string {
  return shortDigest(JSON.stringify([plan.schema, plan.name, plan.columns, plan.key, plan.uniques, plan.mode, plan.checks, plan.audit]));
}

const textArray = (names: readonly string[]) => (names.length === 0 ? `'{}'` : `array[${names.map(quoteLiteral).join(', ')}]`);

/** Everything that puts an existing table into the mesh: metadata columns, ghosts, triggers, merge functions. */
export function meshTableSql(plan: TablePlan): string {
  const facts = factsOf(plan);
  const ghost = meshObject('ghost', facts.base);
  const uniqueIndexes = plan.uniques.map((columns) => `create index on ${ghost} (${columns.map(quoteIdent).join(', ')}) where _mesh_kind = 'p';`);
  return `-- ${'-'.repeat(100)}
-- ${planName(plan).replace(/[\r\n]/g, ' ')} in the mesh: ${facts.byColumn ? 'merged column by column' : 'merged as whole rows'}${facts.counters.length > 0 ? `, counters ${facts.counters.map((c) => c.name.replace(/[\r\n]/g, ' ')).join(', ')}` : ''}
-- ${'-'.repeat(100)}
alter table ${facts.table} add column _mesh_w bigint not null default ${baselineStamp}${facts.byColumn ? ', add column _mesh_m jsonb' : ''};
-- Tombstones (d) and hidden rows (p); local to this node.
create table ${ghost} as select * from ${facts.table} with no data;
alter table ${ghost} add column _mesh_kind "char", add column _mesh_d bigint, add column _mesh_o bigint, add column _mesh_ox bigint, add column _mesh_why text, add primary key (${keyList(facts)});
${facts.unique ? `create index on ${ghost} (_mesh_w) where _mesh_kind = 'p';\n${uniqueIndexes.join('\n')}\n` : ''}insert into _mesh.tbl values (${quoteLiteral(facts.name)}, ${quoteLiteral(facts.table)}::regclass, ${quoteLiteral(facts.base)}, '${plan.mode}',
  ${textArray(facts.sent.map((c) => c.name))}, ${textArray(plan.key)}, ${textArray(facts.counters.map((c) => c.name))}, '${planDigest(plan)}');
${facts.unique ? `insert into _mesh.epoch (tbl) values (${quoteLiteral(facts.name)});\n` : ''}
${captureSql(facts)}

${mergeSql(facts)}

${stateSql(facts)}`;
}

/** Takes a table out of the mesh; its rows stay. */
export function leaveTableSql(plan: { readonly table: string; readonly base: string }, keepColumns = false): string {
  const names = ['born', 'stamp', 'rekey', 'rekeyed', 'inserted', 'updated', 'deleted', 'release', 'emptied'];
  return `${names.map((n) => `drop trigger if exists zzz_mesh_${n} on ${plan.table};`).join('\n')}${keepColumns ? '' : `\nalter table ${plan.table} drop column if exists _mesh_w, drop column if exists _mesh_m;`}`;
}

