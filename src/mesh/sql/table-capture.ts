import { quoteIdent, quoteLiteral } from '../../pg/identifiers.ts';
import { meshObject } from '../names.ts';
import { asText, hashOf, type PlanColumn, type PlanFacts } from '../table-plan.ts';
import { baselineStamp } from './core.ts';
import { dependsOnTimeZone, pinnedSettings } from './types.ts';

/** `x.a = y.a and x.b = y.b` over the key's columns. */
export function sameKey(facts: PlanFacts, a: string, b: string, equals = '='): string {
  return facts.keys.map((c) => `${a}.${quoteIdent(c.name)} ${equals} ${b}.${quoteIdent(c.name)}`).join(' and ');
}

/** For functions without a search_path of their own. */
const boundEquals = 'operator(pg_catalog.=)';

/** The key of a row as text, the tie-break between two keys with one stamp: compared byte by byte, so that every node decides alike. */
export function keyText(facts: PlanFacts, alias: string): string {
  const texts = facts.keys.map((c) => asText(`${alias}.${quoteIdent(c.name)}`, c));
  return texts.length === 1 ? `(${texts[0]})` : `(array[${texts.join(', ')}]::pg_catalog.text)`;
}

export function imageOf(facts: PlanFacts, alias: string, only?: readonly PlanColumn[]): string {
  const wanted = only ?? facts.sent;
  return `array[${facts.sent.map((c) => (wanted.includes(c) ? asText(`${alias}.${quoteIdent(c.name)}`, c) : 'null')).join(', ')}]`;
}

export function keyBucket(facts: PlanFacts, alias: string): string {
  return `_mesh.bucket(${hashOf(alias, facts.keys)})`;
}

/** Hashes of the unique keys of a row; null where a column is null, which rivals with nothing. */
export function uniqueHashes(facts: PlanFacts, alias: string): string {
  return facts.plan.uniques.map((unique) => {
    const columns = unique.map((name) => facts.plan.columns.find((c) => c.name === name)!);
    return `case when ${columns.map((c) => `${alias}.${quoteIdent(c.name)} is not null`).join(' and ')} then ${hashOf(alias, columns)} end`;
  }).join(', ');
}

/** Whether two rows share a unique key. */
export function sharesUnique(facts: PlanFacts, a: string, b: string): string {
  return facts.plan.uniques.map((unique) => `(${unique.map((name) => `${a}.${quoteIdent(name)} = ${b}.${quoteIdent(name)}`).join(' and ')})`).join(' or ');
}

export function uniqueChanged(facts: PlanFacts, a: string, b: string): string {
  return [...new Set(facts.plan.uniques.flat())].map((name) => `${a}.${quoteIdent(name)} is distinct from ${b}.${quoteIdent(name)}`).join(' or ');
}

export function keyChanged(facts: PlanFacts, a: string, b: string): string {
  return facts.keys.map((c) => `${a}.${quoteIdent(c.name)} is distinct from ${b}.${quoteIdent(c.name)}`).join(' or ');
}

/** SET clauses for functions that turn values into text or back, and compare keys by their text. */
export function valuePins(facts: PlanFacts): string {
  const pins = pinnedSettings(facts.sent.map((c) => c.type));
  // The text of a key ranks rows of one stamp: it must not follow a server's time zone.
  return [...pins, ...(facts.keys.some((c) => dependsOnTimeZone(c.type)) ? [`timezone = 'UTC'`] : [])].map((p) => ` set ${p}`).join('');
}

/** A trigger function with the owner's rights. `values`: whether it turns values into text or back; `bound`: whether it names all it uses in full. */
export function ownerTrigger(facts: PlanFacts, kind: string, declare: string, body: string, options: { readonly values?: boolean; readonly bound?: boolean } = {}): string {
  const pins = options.values === false ? '' : valuePins(facts);
  const path = options.bound ? '' : ` set search_path = ${facts.searchPath}`;
  return `create function ${meshObject(kind, facts.base)}() returns trigger language plpgsql security definer${path}${pins} as $mesh$
#variable_conflict use_variable
${declare === '' ? '' : `declare\n${indent(declare, 2)}\n`}begin
${indent(body, 2)}
end $mesh$;`;
}

export function indent(text: string, by: number): string {
  return text.split('\n').filter((line) => line.trim() !== '').map((line) => ' '.repeat(by) + line).join('\n');
}

const auditLines = (facts: PlanFacts) => (facts.plan.audit ? `new.updated_at := _mesh.stamp_time(new._mesh_w);\nnew.origin_node := _mesh.my_name();` : '');

/** Stamps by column and counters of a row that is born: counters begin with the value given. */
function bornMeta(facts: PlanFacts, generation: string): string {
  if (!facts.byColumn) return '';
  const counters = facts.counters.map((c) => `${quoteLiteral(c.name)}, pg_catalog.jsonb_build_object(_mesh.me()::pg_catalog.text, pg_catalog.jsonb_build_array(coalesce(new.${quoteIdent(c.name)}, 0), new._mesh_w))`);
  return `new._mesh_m := pg_catalog.jsonb_build_object('g', ${generation}, 'b', new._mesh_w, 's', '{}'::pg_catalog.jsonb, 'c', ${counters.length === 0 ? `'{}'::pg_catalog.jsonb` : `pg_catalog.jsonb_build_object(${counters.join(', ')})`});`;
}

/** Counters of a row of which nothing is known: an entry for each, so that totals can be set into it. */
export function noCounters(facts: PlanFacts): string {
  return `${quoteLiteral(JSON.stringify(Object.fromEntries(facts.counters.map((c) => [c.name, {}]))))}::jsonb`;
}

/** The metadata of a row that was there before the mesh. */
export function baselineMeta(facts: PlanFacts, alias: string): string {
  const counters = facts.counters.map((c) => `${quoteLiteral(c.name)}, pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(${alias}.${quoteIdent(c.name)}, 0), ${baselineStamp}))`);
  return `pg_catalog.jsonb_build_object('g', 0, 'b', ${baselineStamp}, 's', '{}'::pg_catalog.jsonb, 'c', ${counters.length === 0 ? `'{}'::pg_catalog.jsonb` : `pg_catalog.jsonb_build_object(${counters.join(', ')})`})`;
}

const journalColumns = 'insert into _mesh.journal (origin, xid, tbl, op, w, m, img)';

/** Looks at what lies under the key of a row that is about to be born, and stamps it above all that. */
function birth(facts: PlanFacts, moving: boolean): string {
  const ghost = meshObject('ghost', facts.base);
  const name = quoteLiteral(facts.name);
  const equals = bornBound(facts) ? boundEquals : '=';
  const rivals = facts.unique ? `perform _mesh.unmoved(${name});
perform _mesh.lock(${facts.lockClass}, array[${uniqueHashes(facts, 'new')}${moving ? `, ${uniqueHashes(facts, 'old')}` : ''}], false);
select max(x._mesh_w) into v_floor from ${ghost} x where x._mesh_kind = 'p' and (${sharesUnique(facts, 'x', 'new')});` : '';
  return `${rivals}
perform pg_catalog.pg_advisory_xact_lock_shared(${facts.lockClass}, ${keyBucket(facts, 'new')});
if _mesh.old_snapshot() then
  -- Fails with 40001 where a tombstone came behind our snapshot.
  insert into ${ghost} (${facts.keys.map((c) => quoteIdent(c.name)).join(', ')}, _mesh_kind) values (${facts.keys.map((c) => `new.${quoteIdent(c.name)}`).join(', ')}, 'x') on conflict do nothing;
  delete from ${ghost} x where ${sameKey(facts, 'x', 'new', equals)} and x._mesh_kind ${equals} 'x';
end if;
select x._mesh_kind as kind, x._mesh_w as w, x._mesh_d as d into v_g from ${ghost} x where ${sameKey(facts, 'x', 'new', equals)};
if v_g.kind ${equals} 'p' then
  raise unique_violation using message = pg_catalog.format('key %s is held by a hidden row of %s', ${keyText(facts, 'new')}, ${name}), hint = 'The row lost a unique key to another row, or fails a constraint; see _mesh.conflict.';
end if;
new._mesh_w := _mesh.next_stamp(greatest(${[facts.unique ? 'v_floor' : '', 'v_g.w', 'v_g.d', moving ? 'old._mesh_w' : ''].filter(Boolean).join(', ')}));
${bornMeta(facts, 'coalesce(v_g.d, 0)')}`;
}

/** Tables with unique keys take more locks and look for rivals, which a search_path hardly slows. */
function bornBound(facts: PlanFacts): boolean {
  return facts.builtIn && !facts.unique;
}

/** The triggers that stamp and record local writes. They do not fire in apply workers, which run with session_replication_role = replica. */
export function captureSql(facts: PlanFacts): string {
  const { table, base } = facts;
  const ghost = meshObject('ghost', base);
  const name = quoteLiteral(facts.name);
  const floor = facts.unique ? 'v_floor bigint;' : '';
  const equals = facts.builtIn ? boundEquals : '=';
  const columnMeta = facts.byColumn ? 'n._mesh_m' : 'null';
  const out: string[] = [];

  out.push(`-- Before INSERT: stamp the row above whatever lies under its key.
${ownerTrigger(facts, 'born', `v_g record;\n${floor}`, `${birth(facts, false)}\n${auditLines(facts)}\nreturn new;`, { values: false, bound: bornBound(facts) })}`);

  const changed = facts.byColumn
    ? `v_m := coalesce(old._mesh_m, ${baselineMeta(facts, 'old')});
${facts.lww.map((c) => `if pg_catalog.record_image_ne(row(new.${quoteIdent(c.name)}), row(old.${quoteIdent(c.name)})) then v_m := pg_catalog.jsonb_set(v_m, ${quoteLiteral(`{s,${pathElement(c.name)}}`)}, pg_catalog.to_jsonb(new._mesh_w)); end if;`).join('\n')}
${facts.counters.map((c) => counterDelta(c)).join('\n')}
new._mesh_m := v_m;`
    : '';
  out.push(`-- Before UPDATE: the stamp. It runs with the writer's own rights and touches no table.
create function ${meshObject('stamp', base)}() returns trigger language plpgsql as $mesh$
#variable_conflict use_variable
${facts.byColumn ? 'declare\n  v_m pg_catalog.jsonb;\n' : ''}begin
  new._mesh_w := _mesh.next_stamp(old._mesh_w);
${indent([changed, auditLines(facts), 'return new;'].join('\n'), 2)}
end $mesh$;`);

  out.push(`-- Before UPDATE that changes the key${facts.unique ? ' or a unique key' : ''}: the old key dies, the new one is born.
${ownerTrigger(facts, 'rekey', `v_g record;\nv_d bigint;\n${floor}${facts.byColumn ? '\nv_m jsonb;' : ''}`, `${facts.unique ? `if not (${keyChanged(facts, 'new', 'old')}) then
  perform _mesh.unmoved(${name});
  perform _mesh.lock(${facts.lockClass}, array[${uniqueHashes(facts, 'new')}, ${uniqueHashes(facts, 'old')}], false);
  select max(x._mesh_w) into v_floor from ${ghost} x where x._mesh_kind = 'p' and (${sharesUnique(facts, 'x', 'new')});
  new._mesh_w := _mesh.next_stamp(greatest(v_floor, old._mesh_w));
${indent(changed, 2)}
${indent(auditLines(facts), 2)}
  return new;
end if;` : ''}
v_d := _mesh.next_stamp(old._mesh_w);
${bury(facts, 'old', 'v_d')}
${birth(facts, true)}
${auditLines(facts)}
return new;`)}
${ownerTrigger(facts, 'rekeyed', '', `perform ${meshObject('claim', base)}(${facts.keys.map((c) => `new.${quoteIdent(c.name)}`).join(', ')});\nreturn null;`, { values: false })}`);

  out.push(`-- After the statement: its rows go into the journal.
${claimSql(facts)}
${ownerTrigger(facts, 'inserted', `v_xact constant bigint := pg_catalog.pg_current_xact_id()::pg_catalog.text::bigint;`, `${journalColumns}
  select _mesh.me(), case when exists (select from ${ghost} x where ${sameKey(facts, 'x', 'n', equals)} offset 0) then ${meshObject('claim', base)}(${facts.keys.map((c) => `n.${quoteIdent(c.name)}`).join(', ')}) else v_xact end,
    ${name}, 'I', n._mesh_w, ${columnMeta}, ${imageOf(facts, 'n')} from new_rows n;
return null;`, { bound: facts.builtIn })}
${ownerTrigger(facts, 'updated', `v_xact constant bigint := pg_catalog.pg_current_xact_id()::pg_catalog.text::bigint;${facts.unique ? `\nv_o record;\nv_was ${facts.table};` : ''}`, `${journalColumns}
  select _mesh.me(), v_xact, ${name}, 'U', n._mesh_w, ${columnMeta}, ${imageOf(facts, 'n')} from new_rows n;
${promoteReleased(facts)}
return null;`, { bound: facts.builtIn })}
${ownerTrigger(facts, 'deleted', facts.unique ? 'v_o record;\nv_was ' + facts.table + ';' : '', `${facts.byColumn ? `if exists (select from old_rows o join ${table} x on ${sameKey(facts, 'x', 'o')}) then
  raise feature_not_supported using message = 'a row of ${facts.name.replaceAll("'", "''")} was deleted and inserted again in one statement', hint = 'The table is merged by column. Use two statements, or UPDATE.';
end if;` : `if exists (select from old_rows o join ${table} x on ${sameKey(facts, 'x', 'o')} where x._mesh_w <= o._mesh_w) then
  raise serialization_failure using message = 'a row of ${facts.name.replaceAll("'", "''")} was deleted and inserted again in one statement while the clock stood still';
end if;`}
with dead as (
  insert into ${ghost} as g (${ghostColumns(facts)}, _mesh_kind, _mesh_d, _mesh_o, _mesh_ox)
  select ${ghostValues(facts, 'o')}, 'd', _mesh.next_stamp(o._mesh_w), _mesh.me(), pg_current_xact_id()::text::bigint from old_rows o
  where not exists (select from ${table} x where ${sameKey(facts, 'x', 'o')})
  on conflict (${keyList(facts)}) do update set ${buryUpdate(facts)}
  returning g.*)
${journalColumns}
  select _mesh.me(), pg_current_xact_id()::text::bigint, ${name}, 'D', n._mesh_d, ${deadMeta(facts, 'n')}, ${deadImage(facts, 'n')} from dead n;
${promoteReleased(facts)}
return null;`)}`);

  if (facts.unique) {
    out.push(`-- Before DELETE: whoever hides a row because of this one must wait, so that its release is noticed.
${ownerTrigger(facts, 'release', '', `perform _mesh.unmoved(${name});
perform _mesh.lock(${facts.lockClass}, array[${uniqueHashes(facts, 'old')}], false);
return old;`, { values: false })}`);
  }

  out.push(`-- Before TRUNCATE: every row, hidden ones too, becomes a tombstone.
${ownerTrigger(facts, 'emptied', '', `if _mesh.old_snapshot() then
  raise feature_not_supported using message = 'TRUNCATE of ${facts.name.replaceAll("'", "''")}, which is in a mesh, needs isolation level read committed', hint = 'Rows that came after the snapshot of the transaction would go on this node alone.';
end if;
with dead as (
  insert into ${ghost} as g (${ghostColumns(facts)}, _mesh_kind, _mesh_d, _mesh_o, _mesh_ox)
  select ${ghostValues(facts, 'o')}, 'd', _mesh.next_stamp(o._mesh_w), _mesh.me(), pg_current_xact_id()::text::bigint from ${table} o
  on conflict (${keyList(facts)}) do update set ${buryUpdate(facts)}
  returning g.*)${facts.parks ? `, hidden as (
  update ${ghost} g set _mesh_kind = 'd', _mesh_why = null, _mesh_d = _mesh.next_stamp(greatest(g._mesh_w, g._mesh_d)), _mesh_o = _mesh.me(), _mesh_ox = pg_current_xact_id()::text::bigint where g._mesh_kind = 'p' returning g.*)` : ''}
${journalColumns}
  select _mesh.me(), pg_current_xact_id()::text::bigint, ${name}, 'D', n._mesh_d, ${deadMeta(facts, 'n')}, ${deadImage(facts, 'n')} from ${facts.parks ? '(select * from dead union all select * from hidden)' : 'dead'} n;
return null;`)}`);

  out.push(triggersSql(facts));
  return out.join('\n\n');
}

function triggersSql(facts: PlanFacts): string {
  const { table, base } = facts;
  const call = (kind: string) => `execute function ${meshObject(kind, base)}()`;
  const moved = [keyChanged(facts, 'old', 'new'), ...(facts.unique ? [uniqueChanged(facts, 'old', 'new')] : [])].join(' or ');
  return `create trigger zzz_mesh_born before insert on ${table} for each row ${call('born')};
create trigger zzz_mesh_stamp before update on ${table} for each row when (not (${moved})) ${call('stamp')};
create trigger zzz_mesh_rekey before update on ${table} for each row when (${moved}) ${call('rekey')};
create trigger zzz_mesh_rekeyed after update on ${table} for each row when (${keyChanged(facts, 'old', 'new')}) ${call('rekeyed')};
create trigger zzz_mesh_inserted after insert on ${table} referencing new table as new_rows for each statement ${call('inserted')};
create trigger zzz_mesh_updated after update on ${table} referencing ${facts.unique ? 'old table as old_rows ' : ''}new table as new_rows for each statement ${call('updated')};
create trigger zzz_mesh_deleted after delete on ${table} referencing old table as old_rows for each statement ${call('deleted')};
${facts.unique ? `create trigger zzz_mesh_release before delete on ${table} for each row ${call('release')};\n` : ''}create trigger zzz_mesh_emptied before truncate on ${table} for each statement ${call('emptied')};`;
}

const pathElement = (name: string) => `"${name.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`;

function counterDelta(c: PlanColumn): string {
  const column = quoteIdent(c.name);
  const name = quoteLiteral(c.name);
  return `if new.${column} is distinct from old.${column} then
  v_m := pg_catalog.jsonb_set(v_m, array['c', ${name}, _mesh.me()::pg_catalog.text], pg_catalog.jsonb_build_array(coalesce(new.${column}, 0)::numeric - coalesce(old.${column}, 0)::numeric + coalesce((v_m -> 'c' -> ${name} -> _mesh.me()::pg_catalog.text ->> 0)::numeric, 0), new._mesh_w));
end if;`;
}

export function keyList(facts: PlanFacts): string {
  return facts.keys.map((c) => quoteIdent(c.name)).join(', ');
}

/** Columns of a tombstone: for tables merged by row the key is enough. */
function ghostKept(facts: PlanFacts): readonly PlanColumn[] {
  return facts.byColumn ? facts.stored : facts.keys;
}

export function ghostColumns(facts: PlanFacts): string {
  return [...ghostKept(facts).map((c) => quoteIdent(c.name)), '_mesh_w', ...(facts.byColumn ? ['_mesh_m'] : [])].join(', ');
}

export function ghostValues(facts: PlanFacts, alias: string): string {
  return [...ghostKept(facts).map((c) => `${alias}.${quoteIdent(c.name)}`), `${alias}._mesh_w`, ...(facts.byColumn ? [`coalesce(${alias}._mesh_m, ${baselineMeta(facts, alias)})`] : [])].join(', ');
}

export function buryUpdate(facts: PlanFacts): string {
  const others = ghostKept(facts).filter((c) => c.merge !== 'key').map((c) => `${quoteIdent(c.name)} = excluded.${quoteIdent(c.name)}`);
  // The tag (node, transaction) says what must be acknowledged before the tombstone goes. Told again by several nodes, all end with the highest.
  const retag = 'excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o))))';
  return [`_mesh_kind = 'd'`, '_mesh_why = null', '_mesh_w = greatest(g._mesh_w, excluded._mesh_w)', '_mesh_d = greatest(g._mesh_d, excluded._mesh_d)', `_mesh_o = case when ${retag} then excluded._mesh_o else g._mesh_o end`,
    `_mesh_ox = case when ${retag} then excluded._mesh_ox else g._mesh_ox end`, ...others, ...(facts.byColumn ? ['_mesh_m = excluded._mesh_m'] : [])].join(', ');
}

/** Deletions of tables merged by column carry what the row was, so that it can come back whole. */
export function deadMeta(facts: PlanFacts, alias: string): string {
  return facts.byColumn ? `${alias}._mesh_m || pg_catalog.jsonb_build_object('w', ${alias}._mesh_w)` : 'null';
}

export function deadImage(facts: PlanFacts, alias: string): string {
  return facts.byColumn ? imageOf(facts, alias) : imageOf(facts, alias, facts.keys);
}

/** Writes the tombstone of a row whose key is being changed, and tells the others. */
function bury(facts: PlanFacts, alias: string, d: string): string {
  return `insert into ${meshObject('ghost', facts.base)} as g (${ghostColumns(facts)}, _mesh_kind, _mesh_d, _mesh_o, _mesh_ox)
  values (${ghostValues(facts, alias)}, 'd', ${d}, _mesh.me(), pg_current_xact_id()::text::bigint)
  on conflict (${keyList(facts)}) do update set ${buryUpdate(facts)};
${journalColumns}
  values (_mesh.me(), pg_current_xact_id()::text::bigint, ${quoteLiteral(facts.name)}, 'D', ${d}, ${facts.byColumn ? `coalesce(${alias}._mesh_m, ${baselineMeta(facts, alias)}) || pg_catalog.jsonb_build_object('w', ${alias}._mesh_w)` : 'null'}, ${deadImage(facts, alias)});`;
}

/**
 * A row was born under a key that has a ghost: the tombstone goes, unless it came behind our back and outranks the row. Returns the transaction's number.
 * The tombstone may be another one than the row was stamped above: a row waits where the one before it is still being deleted.
 */
function claimSql(facts: PlanFacts): string {
  const ghost = meshObject('ghost', facts.base);
  const keys = facts.keys.map((c, i) => ({ column: quoteIdent(c.name), parameter: `v_${i + 1}` }));
  const same = (alias: string) => keys.map((k) => `${alias}.${k.column} = ${k.parameter}`).join(' and ');
  const refuse = `raise serialization_failure using message = 'a row of ${facts.name.replaceAll("'", "''")} was deleted or hidden by another session or node at the same time', hint = 'Try the transaction again.';`;
  // The line with the former number is on its way too: a higher one outdoes it.
  const renew = facts.byColumn ? `
  if v_g.d > (v_x._mesh_m ->> 'g')::bigint then
    -- Stamped before this tombstone could be seen. The life begins after it, or counters of the former one would go on elsewhere. No trigger may stamp the row
    -- again, but a foreign key that is checked later would overlook a row that was changed past it.
    if exists (select from pg_constraint k where k.conrelid = ${quoteLiteral(facts.table)}::regclass and k.contype = 'f' and k.condeferrable) then
      ${refuse}
    end if;
    v_x._mesh_m := jsonb_set(v_x._mesh_m, '{g}', to_jsonb(v_g.d));
    perform set_config('session_replication_role', 'replica', true);
    update ${facts.table} x set _mesh_m = v_x._mesh_m where ${same('x')};
    perform set_config('session_replication_role', v_role, true);
    ${journalColumns} values (_mesh.me(), v_xact, ${quoteLiteral(facts.name)}, 'U', v_x._mesh_w, v_x._mesh_m, ${imageOf(facts, 'v_x')});
  end if;` : '';
  return `create function ${meshObject('claim', facts.base)}(${keys.map((k) => `${k.parameter} ${facts.table}.${k.column}%type`).join(', ')}) returns bigint language plpgsql set search_path = ${facts.searchPath}${facts.byColumn ? valuePins(facts) : ''} as $mesh$
#variable_conflict use_variable
declare
  v_g record;
  v_x ${facts.table};
  v_xact constant bigint := pg_current_xact_id()::text::bigint;${facts.byColumn ? `
  v_role text := current_setting('session_replication_role');` : ''}
begin
  -- Locked, so that a merge that is changing the tombstone is waited for.
  select g._mesh_kind as kind, g._mesh_d as d into v_g from ${ghost} g where ${same('g')} for update;
  if not found then return v_xact; end if;
  select * into v_x from ${facts.table} x where ${same('x')};
  if not found then return v_xact; end if;
  if v_g.kind = 'p' or v_g.d >= v_x._mesh_w then
    ${refuse}
  end if;
  delete from ${ghost} g where ${same('g')};${renew}
  return v_xact;
end $mesh$;`;
}

/** Hidden rows that waited for a unique key of the changed rows are looked at again. */
function promoteReleased(facts: PlanFacts): string {
  if (!facts.unique) return '';
  return `if exists (select from ${meshObject('ghost', facts.base)} x where x._mesh_kind ${boundEquals} 'p') then
  for v_o in select * from old_rows loop
${facts.stored.map((c) => `    v_was.${quoteIdent(c.name)} := v_o.${quoteIdent(c.name)};`).join('\n')}
    perform ${meshObject('promote', facts.base)}(v_was);
  end loop;
end if;`;
}
