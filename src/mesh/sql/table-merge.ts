import { quoteIdent, quoteLiteral } from '../../pg/identifiers.ts';
import { meshObject } from '../names.ts';
import { type PlanColumn, type PlanFacts } from '../table-plan.ts';
import { baselineMeta, buryUpdate, ghostColumns, ghostValues, imageOf, indent, keyBucket, keyList, keyText, noCounters, ownerTrigger, sameKey, sharesUnique, uniqueChanged, uniqueHashes, valuePins } from './table-capture.ts';

/** How the journal's line becomes a row: by the column's own input function. */
function parseImage(facts: PlanFacts, variable: string): string {
  const values = facts.sent.map((c, i) => `${variable}.${quoteIdent(c.name)} := new.img[${i + 1}];`);
  return [...values, ...(facts.plan.audit ? [`${variable}.updated_at := _mesh.stamp_time(new.w);`] : []), `${variable}._mesh_w := new.w;`, ...(facts.byColumn ? [`${variable}._mesh_m := new.m;`] : [])].join('\n');
}

const driftCheck = 'if (new.w >> 9) > _mesh.wall() then perform _mesh.see(new.w, new.origin); end if;';
const lastSentCheck = (facts: PlanFacts) => `if cardinality(new.img) > ${facts.sent.length} then
  raise exception using errcode = '55000', message = 'a change of ${facts.name.replaceAll("'", "''")} has more columns than this node knows', hint = 'Apply the newer schema on this node. The changes of that node wait until then; nothing is lost.';
end if;`;

function storedColumns(facts: PlanFacts): string {
  return [...facts.stored.map((c) => quoteIdent(c.name)), '_mesh_w', ...(facts.byColumn ? ['_mesh_m'] : [])].join(', ');
}

function storedValues(facts: PlanFacts, variable: string): string {
  return [...facts.stored.map((c) => `${variable}.${quoteIdent(c.name)}`), `${variable}._mesh_w`, ...(facts.byColumn ? [`${variable}._mesh_m`] : [])].join(', ');
}

function insertRow(facts: PlanFacts, variable: string): string {
  // Identity columns GENERATED ALWAYS take the value that the row has everywhere.
  return `insert into ${facts.table} (${storedColumns(facts)}) overriding system value values (${storedValues(facts, variable)})`;
}

function note(facts: PlanFacts, kind: string, key: string, detail: string): string {
  return `perform _mesh.note(${quoteLiteral(facts.name)}, ${key}, ${kind}, new.origin, new.w, ${detail});`;
}

/** The functions that merge lines of other nodes into the table, and the trigger on the journal that calls them. */
export function mergeSql(facts: PlanFacts): string {
  const merge = facts.parks || facts.byColumn ? joinMerge(facts) : plainMerge(facts);
  const trigger = `create trigger ${quoteIdent(`apply_${facts.base}`)} before insert on _mesh.journal for each row when (new.tbl = ${quoteLiteral(facts.name)}) execute function ${meshObject('merge', facts.base)}();
alter table _mesh.journal enable replica trigger ${quoteIdent(`apply_${facts.base}`)};`;
  return [...(facts.parks ? [placeSql(facts)] : []), merge, trigger].join('\n\n');
}

/** Rows merged as a whole, with nothing that can hide them: the newest stamp wins, a deletion is one. */
function plainMerge(facts: PlanFacts): string {
  const { table } = facts;
  const ghost = meshObject('ghost', facts.base);
  const sets = [...facts.stored.map((c) => `${quoteIdent(c.name)} = v_r.${quoteIdent(c.name)}`), '_mesh_w = v_r._mesh_w'].join(', ');
  const stale = (kind: string, kept: string) => `if (new.w & 511) <> (${kept} & 511) then ${note(facts, `'${kind}'`, keyText(facts, 'v_r'), `jsonb_build_object('kept', ${kept}, 'lost', to_jsonb(new.img))`)} end if;`;
  return `-- Merges a line of another node. Rows are merged as a whole: the newest stamp wins.
${ownerTrigger(facts, 'merge', `v_r ${table};\nv_kept bigint;\nv_g record;\nv_locked boolean := false;`, `${lastSentCheck(facts)}
${parseImage(facts, 'v_r')}
${driftCheck}
if new.op = 'D' then
  loop
    delete from ${table} x where ${sameKey(facts, 'x', 'v_r')} and x._mesh_w < new.w returning x._mesh_w into v_kept;
    if not found then
      select x._mesh_w into v_kept from ${table} x where ${sameKey(facts, 'x', 'v_r')};
      if found then
        -- A later write keeps the row alive.
        if v_kept < new.w then continue; end if;
        ${stale('delete_older', 'v_kept').replaceAll('\n', '\n        ')}
        return null;
      end if;
      -- No row: nobody may be about to insert one while the tombstone is written.
      if not v_locked then
        perform pg_advisory_xact_lock(${facts.lockClass}, ${keyBucket(facts, 'v_r')});
        v_locked := true;
        continue;
      end if;
      v_kept := 0;
    end if;
    insert into ${ghost} as g (${keyList(facts)}, _mesh_w, _mesh_kind, _mesh_d, _mesh_o, _mesh_ox) values (${facts.keys.map((c) => `v_r.${quoteIdent(c.name)}`).join(', ')}, v_kept, 'd', new.w, new.origin, new.xid)
      on conflict (${keyList(facts)}) do update set ${buryUpdate(facts)};
    return null;
  end loop;
end if;
loop
  if new.op <> 'I' then
    update ${table} x set ${sets} where ${sameKey(facts, 'x', 'v_r')} and x._mesh_w < v_r._mesh_w;
    if found then return null; end if;
  end if;
  new.op := 'U';
  select x._mesh_w into v_kept from ${table} x where ${sameKey(facts, 'x', 'v_r')};
  if found then
    if v_kept < v_r._mesh_w then continue; end if;
    ${stale('update_stale', 'v_kept').replaceAll('\n', '\n    ')}
    return null;
  end if;
  perform pg_advisory_xact_lock_shared(${facts.lockClass}, ${keyBucket(facts, 'v_r')});
  ${insertRow(facts, 'v_r')} on conflict (${keyList(facts)}) do nothing;
  if found then
    -- Looked up only now: whoever buried this key before our row was there has committed, whoever comes later waits for us.
    select x._mesh_d as d into v_g from ${ghost} x where ${sameKey(facts, 'x', 'v_r')};
    if found and v_g.d > v_r._mesh_w then
      delete from ${table} x where ${sameKey(facts, 'x', 'v_r')};
      ${stale('update_deleted', 'v_g.d').replaceAll('\n', '\n      ')}
    elsif found then
      delete from ${ghost} x where ${sameKey(facts, 'x', 'v_r')};
      ${note(facts, `'resurrected'`, keyText(facts, 'v_r'), `jsonb_build_object('deleted', v_g.d)`)}
    end if;
    return null;
  end if;
end loop;`)}`;
}

/** Merges by column, and tables whose rows may be hidden: the join of the state here with the state that the line brings. */
function joinMerge(facts: PlanFacts): string {
  const { table } = facts;
  const ghost = meshObject('ghost', facts.base);
  const fromGhost = (variable: string) => [...facts.stored.map((c) => `${variable}.${quoteIdent(c.name)} := v_g.${quoteIdent(c.name)};`), `${variable}._mesh_w := coalesce(v_g._mesh_w, 0);`, ...(facts.byColumn ? [`${variable}._mesh_m := v_g._mesh_m;`] : [])].join('\n');
  const lockBefore = facts.unique ? `-- The key, its old and its new unique keys are locked before anything is read for good.
select * into v_was from ${table} x where ${sameKey(facts, 'x', 'v_inc')};
v_seen := found;
if not v_seen then
  select * into v_g from ${ghost} x where ${sameKey(facts, 'x', 'v_inc')} and x._mesh_kind = 'p';
  if found then
${indent(fromGhost('v_was'), 4)}
    v_seen := true;
  end if;
end if;
perform _mesh.lock(${facts.lockClass}, array[${keyBucket(facts, 'v_inc')}::bigint] || case when v_seen then array[${uniqueHashes(facts, 'v_was')}] end || case when new.op <> 'D' then array[${uniqueHashes(facts, 'v_inc')}] end, true);
v_locked := true;` : '';
  const recheck = facts.unique ? `if v_seen <> (v_state in ('live', 'p')) or (v_seen and (${uniqueChanged(facts, 'v_was', 'v_cur')})) then continue; end if;` : '';
  const promote = facts.unique ? `if v_state in ('live', 'p') then perform ${meshObject('promote', facts.base)}(v_was); end if;` : '';
  const handle = facts.parks ? `perform ${meshObject('place', facts.base)}(v_r, new.origin);` : `${insertRow(facts, 'v_r')}
  on conflict (${keyList(facts)}) do update set ${upsertSets(facts)};
delete from ${ghost} x where ${sameKey(facts, 'x', 'v_r')};`;
  const body = `${facts.unique ? `${lockBefore}\n` : ''}select * into v_cur from ${table} x where ${sameKey(facts, 'x', 'v_inc')} for update;
v_state := case when found then 'live' else 'none' end;
select * into v_g from ${ghost} x where ${sameKey(facts, 'x', 'v_inc')} for update;
v_d := 0;
if found then
  v_d := coalesce(v_g._mesh_d, 0);
  if v_state = 'none' then
    v_state := v_g._mesh_kind::text;
${indent(fromGhost('v_cur'), 4)}
  end if;
end if;
${recheck}
if v_state = 'none' and not v_locked then
  -- Nobody may be about to insert this key.
  perform pg_advisory_xact_lock(${facts.lockClass}, ${keyBucket(facts, 'v_inc')});
  v_locked := true;
  continue;
end if;
${facts.byColumn ? columnJoin(facts) : rowJoin(facts)}
if v_d > v_r._mesh_w then
  if v_state = 'live' then delete from ${table} x where ${sameKey(facts, 'x', 'v_r')}; end if;
  insert into ${ghost} as g (${ghostColumns(facts)}, _mesh_kind, _mesh_d, _mesh_o, _mesh_ox) values (${ghostValues(facts, 'v_r')}, 'd', v_d,
      case when new.op = 'D' and new.w = v_d then new.origin end, case when new.op = 'D' and new.w = v_d then new.xid end)
    on conflict (${keyList(facts)}) do update set ${buryUpdate(facts)};
${indent(promote, 2)}
else
${indent(handle, 2)}
  if v_state = 'd' then ${note(facts, `'resurrected'`, keyText(facts, 'v_r'), `jsonb_build_object('deleted', v_d)`)} end if;
${indent(promote, 2)}
end if;
return null;`;
  const attempts = facts.unique
    ? `loop
  begin
${indent(body, 4)}
  exception when unique_violation then
    -- A rival committed here in the meantime: look again.
    v_tries := v_tries + 1;
    if v_tries > 20 then raise; end if;
  end;
end loop;`
    : `loop\n${indent(body, 2)}\nend loop;`;
  const declare = [`v_inc ${table};`, `v_cur ${table};`, `v_r ${table};`, `v_g ${ghost};`, 'v_state text;', 'v_d bigint;', 'v_locked boolean := false;', ...(facts.unique ? [`v_was ${table};`, 'v_seen boolean;', 'v_tries int := 0;'] : []),
    ...(facts.byColumn ? ['v_m jsonb;', 'v_im jsonb;', 'v_iw bigint;', 'v_b bigint;', 'v_s1 bigint;', 'v_s2 bigint;', 'v_s jsonb;', 'v_c jsonb;', 'v_n text;'] : [])].join('\n');
  return `-- Merges a line of another node: the join of two states, the same whichever comes first.
${ownerTrigger(facts, 'merge', declare, `${lastSentCheck(facts)}
${parseImage(facts, 'v_inc')}
${driftCheck}
${facts.unique ? `perform pg_advisory_xact_lock(4712, ${facts.lockClass});` : ''}
${attempts}`)}`;
}

/** Whole rows: the newest stamp brings all its values. Leaves the result in r and d. */
function rowJoin(facts: PlanFacts): string {
  const stale = (kind: string) => `if (new.w & 511) <> (greatest(v_cur._mesh_w, v_d) & 511) then ${note(facts, kind, keyText(facts, 'v_inc'), `jsonb_build_object('kept', greatest(v_cur._mesh_w, v_d), 'lost', to_jsonb(new.img))`)} end if;`;
  return `if v_state = 'none' then v_cur._mesh_w := 0; end if;
if new.w <= greatest(v_cur._mesh_w, v_d) then
  if new.op = 'D' then
    if v_state in ('live', 'p') then ${stale(`'delete_older'`)}
    elsif v_state = 'd' and new.w = v_d then
      -- Told again, by a node that took the tombstone over.
      update ${meshObject('ghost', facts.base)} g set _mesh_o = new.origin, _mesh_ox = new.xid where ${sameKey(facts, 'g', 'v_inc')} and ((new.origin, new.xid) > (g._mesh_o, g._mesh_ox) or _mesh.gone(g._mesh_o));
    end if;
  else ${stale(`case when v_d > v_cur._mesh_w then 'update_deleted' else 'update_stale' end`)} end if;
  return null;
end if;
if new.op = 'D' then
  v_d := new.w;
  if v_state = 'none' then v_r := v_inc; v_r._mesh_w := 0; else v_r := v_cur; end if;
else
  v_r := v_inc;
end if;`;
}

/** Each column takes its highest stamp; counters keep the highest total of every node, a later life begins anew. Leaves the result in r and d. */
function columnJoin(facts: PlanFacts): string {
  const rowColumns = facts.stored.filter((c) => c.merge === 'key' || c.merge === 'row');
  const take = (c: PlanColumn) => `v_r.${quoteIdent(c.name)} := v_inc.${quoteIdent(c.name)};`;
  const byStamp = facts.lww.map((c) => `v_s1 := _mesh.column_stamp(v_m, ${quoteLiteral(c.name)});
v_s2 := _mesh.column_stamp(v_im, ${quoteLiteral(c.name)});
if v_s2 > v_s1 then ${take(c)} v_s1 := v_s2; end if;
if v_s1 <> v_b then v_s := v_s || jsonb_build_object(${quoteLiteral(c.name)}, v_s1); end if;`).join('\n');
  const counters = facts.counters.length === 0 ? '' : `v_c := v_m -> 'c';
if (v_im ->> 'g')::bigint > (v_m ->> 'g')::bigint then v_c := v_im -> 'c';
elsif (v_im ->> 'g')::bigint = (v_m ->> 'g')::bigint then
${facts.counters.map((k) => `  for v_n in select jsonb_object_keys(v_im -> 'c' -> ${quoteLiteral(k.name)}) loop
    if coalesce((v_c -> ${quoteLiteral(k.name)} -> v_n ->> 1)::bigint, 0) < (v_im -> 'c' -> ${quoteLiteral(k.name)} -> v_n ->> 1)::bigint then v_c := jsonb_set(v_c, array[${quoteLiteral(k.name)}, v_n], v_im -> 'c' -> ${quoteLiteral(k.name)} -> v_n); end if;
  end loop;`).join('\n')}
end if;`;
  return `v_iw := case when new.op = 'D' then (new.m ->> 'w')::bigint else new.w end;
v_im := coalesce(new.m - 'w', ${baselineMeta(facts, 'v_inc')});
v_r := v_inc;
v_r._mesh_w := v_iw;
v_r._mesh_m := v_im;
if v_state in ('live', 'p') or (v_state = 'd' and v_cur._mesh_m is not null) then
  v_m := coalesce(v_cur._mesh_m, ${baselineMeta(facts, 'v_cur')});
  if new.op <> 'D' and v_cur._mesh_w > v_iw and v_state <> 'd' and (v_iw & 511) <> (v_cur._mesh_w & 511) then ${note(facts, `'update_merged'`, keyText(facts, 'v_inc'), `jsonb_build_object('kept', v_cur._mesh_w, 'merged', to_jsonb(new.img))`)} end if;
  v_r := v_cur;
  v_b := greatest((v_m ->> 'b')::bigint, (v_im ->> 'b')::bigint);
  v_s := '{}';
${indent(byStamp, 2)}
  if v_iw > v_cur._mesh_w then
${indent(rowColumns.map(take).join('\n'), 4)}${facts.plan.audit ? '\n    v_r.updated_at := _mesh.stamp_time(v_iw);' : ''}
    v_r._mesh_w := v_iw;
  end if;
${indent(counters, 2)}
  v_r._mesh_m := jsonb_build_object('g', greatest((v_m ->> 'g')::bigint, (v_im ->> 'g')::bigint), 'b', v_b, 's', v_s, 'c', ${facts.counters.length === 0 ? `'{}'::jsonb` : 'v_c'});
elsif v_state = 'd' then
  v_r._mesh_w := greatest(v_iw, v_cur._mesh_w);
end if;${facts.plan.audit ? '\nv_r.updated_at := _mesh.stamp_time(v_r._mesh_w);' : ''}
if new.op = 'D' then v_d := greatest(v_d, new.w); end if;`;
}

function upsertSets(facts: PlanFacts): string {
  return [...facts.stored.map((c) => c.name), '_mesh_w', ...(facts.byColumn ? ['_mesh_m'] : [])].map((name) => `${quoteIdent(name)} = excluded.${quoteIdent(name)}`).join(', ');
}

/** Shows or hides a merged row, hides its rivals, and looks again at hidden rows when a rival leaves. */
function placeSql(facts: PlanFacts): string {
  const { table, base } = facts;
  const ghost = meshObject('ghost', base);
  const name = quoteLiteral(facts.name);
  const outranks = (a: string, b: string) => `(${a}._mesh_w > ${b}._mesh_w or (${a}._mesh_w = ${b}._mesh_w and ${keyText(facts, a)} collate "C" > ${keyText(facts, b)} collate "C"))`;
  const park = (variable: string, why: string, values = storedValues(facts, variable)) => `${facts.unique ? `update _mesh.epoch set n = n + 1 where tbl = ${name};\n` : ''}insert into ${ghost} (${storedColumns(facts)}, _mesh_kind, _mesh_d, _mesh_why) values (${values}, 'p', 0, ${why})
  on conflict (${keyList(facts)}) do update set ${upsertSets(facts)}, _mesh_kind = 'p', _mesh_d = 0, _mesh_why = excluded._mesh_why, _mesh_o = null, _mesh_ox = null;`;
  const rivals = facts.unique ? `select x.* into v_g from ${ghost} x where x._mesh_kind = 'p' and (${sharesUnique(facts, 'x', 'v_r')}) and not (${sameKey(facts, 'x', 'v_r')}) and ${outranks('x', 'v_r')} limit 1;
if found then v_why := 'unique'; v_winner := ${keyText(facts, 'v_g')}; end if;
-- Every lower rival is hidden, whether this row ends up visible or not.
for v_rival in select * from ${table} x where (${sharesUnique(facts, 'x', 'v_r')}) and not (${sameKey(facts, 'x', 'v_r')}) for update loop
  if ${outranks('v_rival', 'v_r')} then
    v_why := 'unique';
    v_winner := ${keyText(facts, 'v_rival')};
  else
    delete from ${table} x where ${sameKey(facts, 'x', 'v_rival')};
${indent(park('v_rival', `'unique'`), 4)}
    perform _mesh.note(${name}, ${keyText(facts, 'v_rival')}, 'unique_parked', v_origin, v_rival._mesh_w, jsonb_build_object('winner', ${keyText(facts, 'v_r')}, 'winner_stamp', v_r._mesh_w));
  end if;
end loop;` : '';
  // A sum that its column cannot hold hides the row, as a failed CHECK does; the counters themselves are kept in _mesh_m.
  const sums = facts.counters.map((c) => `v_r.${quoteIdent(c.name)} := (select coalesce(sum((e.value ->> 0)::numeric), 0) from jsonb_each(v_r._mesh_m -> 'c' -> ${quoteLiteral(c.name)}) e);`).join('\n');
  const blank = facts.counters.map((c) => `v_r.${quoteIdent(c.name)} := null;`).join('\n');
  const promote = facts.unique ? `

-- Rows that were hidden because of this one are looked at again, the highest first.
create function ${meshObject('promote', base)}(v_was ${table}) returns void language plpgsql set search_path = ${facts.searchPath} as $mesh$
#variable_conflict use_variable
declare
  v_candidate record;
  v_g ${ghost};
  v_r ${table};
  v_tries int;
  v_role text := current_setting('session_replication_role');
begin
  for v_candidate in select x.* from ${ghost} x where x._mesh_kind = 'p' and x._mesh_why = 'unique' and (${sharesUnique(facts, 'x', 'v_was')}) order by x._mesh_w desc, ${keyText(facts, 'x')} collate "C" desc loop
    v_tries := 0;
    loop
      select * into v_g from ${ghost} x where ${sameKey(facts, 'x', 'v_candidate')} and x._mesh_kind = 'p' for update;
      exit when not found;
${indent([...facts.stored.map((c) => `v_r.${quoteIdent(c.name)} := v_g.${quoteIdent(c.name)};`), 'v_r._mesh_w := v_g._mesh_w;', ...(facts.byColumn ? ['v_r._mesh_m := v_g._mesh_m;'] : [])].join('\n'), 6)}
      begin
        -- The row comes back as it is everywhere: no trigger may stamp it.
        perform set_config('session_replication_role', 'replica', true);
        perform ${meshObject('place', base)}(v_r, null);
        perform set_config('session_replication_role', v_role, true);
        exit;
      exception when unique_violation then
        v_tries := v_tries + 1;
        if v_tries > 20 then raise; end if;
      end;
    end loop;
  end loop;
end $mesh$;` : '';
  return `-- Shows a live row, or hides it: visible is what passes its constraints and holds its unique keys against all live rows of lower (stamp, key).
create function ${meshObject('place', base)}(v_r ${table}, v_origin bigint) returns void language plpgsql set search_path = ${facts.searchPath} as $mesh$
#variable_conflict use_variable
declare
  v_why text;
  v_winner text;
${indent(facts.unique ? `v_g ${ghost};\nv_rival ${table};` : '', 2)}
begin
${indent(rivals, 2)}
  if v_why is null then
    begin
${indent(sums, 6)}
      ${insertRow(facts, 'v_r')}
        on conflict (${keyList(facts)}) do update set ${upsertSets(facts)};
      delete from ${ghost} x where ${sameKey(facts, 'x', 'v_r')};
      return;
    exception when check_violation or not_null_violation or numeric_value_out_of_range then
      v_why := 'invalid';
      v_winner := sqlerrm;
    end;
  end if;
${facts.counters.length === 0 ? '' : `  -- The same sums whatever hides the row: which reason came first differs from node to node.
  begin
${indent(sums, 4)}
  exception when numeric_value_out_of_range then
${indent(blank, 4)}
  end;
`}  delete from ${table} x where ${sameKey(facts, 'x', 'v_r')};
${indent(park('v_r', 'v_why'), 2)}
  perform _mesh.note(${name}, ${keyText(facts, 'v_r')}, v_why || '_parked', v_origin, v_r._mesh_w, jsonb_build_object('by', v_winner));
end $mesh$;${promote}`;
}

/** What verify, repair and a joining node read: every row, hidden row and tombstone of the table in one shape. */
export function stateSql(facts: PlanFacts): string {
  const ghost = meshObject('ghost', facts.base);
  const meta = (alias: string) => (facts.byColumn ? `coalesce(${alias}._mesh_m, ${baselineMeta(facts, alias)})` : 'null::jsonb');
  return `-- Every row (l), hidden row (p) and tombstone (d) of the table.
create function ${meshObject('state', facts.base)}() returns table (key text, kind "char", w bigint, d bigint, img text[], m jsonb, why text) language sql stable set search_path = ${facts.searchPath}${valuePins(facts)} as $mesh$
  select ${keyText(facts, 'x')}, 'l'::"char", x._mesh_w, 0::bigint, ${imageOf(facts, 'x')}, ${meta('x')}, null::text from ${facts.table} x
  union all
  select ${keyText(facts, 'g')}, g._mesh_kind, coalesce(g._mesh_w, 0), coalesce(g._mesh_d, 0), ${facts.byColumn ? imageOf(facts, 'g') : `case when g._mesh_kind = 'd' then ${imageOf(facts, 'g', facts.keys)} else ${imageOf(facts, 'g')} end`}, ${facts.byColumn ? 'g._mesh_m' : 'null::jsonb'}, g._mesh_why from ${ghost} g where g._mesh_kind in ('d', 'p')
$mesh$;

-- Tells the others again what this node holds: all of it, or these keys. Merging it twice changes nothing.
create function ${meshObject('reemit', facts.base)}(v_keys text[] default null) returns bigint language plpgsql security definer set search_path = ${facts.searchPath}${valuePins(facts)} as $mesh$
#variable_conflict use_variable
declare v_n bigint;
begin
  insert into _mesh.journal (origin, xid, tbl, op, w, m, img)
    select _mesh.me(), pg_current_xact_id()::text::bigint, ${quoteLiteral(facts.name)}, case when s.kind = 'd' then 'D' else 'U' end, case when s.kind = 'd' then s.d else s.w end,
      ${facts.byColumn ? `case when s.kind = 'd' then coalesce(s.m, jsonb_build_object('g', 0, 'b', 0, 's', '{}'::jsonb, 'c', ${noCounters(facts)})) || jsonb_build_object('w', s.w) else s.m end` : 'null'}, s.img
    from ${meshObject('state', facts.base)}() s where v_keys is null or s.key = any (v_keys);
  get diagnostics v_n = row_count;
  update ${ghost} g set _mesh_o = _mesh.me(), _mesh_ox = pg_current_xact_id()::text::bigint
    where g._mesh_kind = 'd' and (v_keys is null or ${keyText(facts, 'g')} = any (v_keys)) and ((_mesh.me(), pg_current_xact_id()::text::bigint) > (g._mesh_o, g._mesh_ox) or _mesh.gone(g._mesh_o));
  return v_n;
end $mesh$;

-- Stamps these rows anew with all their values, for repair: where nodes hold other values under one stamp, the merge cannot decide.
create function ${meshObject('touch', facts.base)}(v_keys text[]) returns bigint language plpgsql security definer set search_path = ${facts.searchPath}${valuePins(facts)} as $mesh$
#variable_conflict use_variable
declare
  v_x ${facts.table};
  v_w bigint;
  v_n bigint := 0;
  v_role text := current_setting('session_replication_role');
begin
  perform set_config('session_replication_role', 'replica', true);
  for v_x in select * from ${facts.table} x where ${keyText(facts, 'x')} = any (v_keys) for update loop
    v_w := _mesh.next_stamp(v_x._mesh_w);
    update ${facts.table} x set _mesh_w = v_w${facts.byColumn ? `, _mesh_m = coalesce(x._mesh_m, ${baselineMeta(facts, 'x')}) || jsonb_build_object('g', v_w, 'b', v_w, 's', '{}'::jsonb)` : ''}${facts.plan.audit ? ', updated_at = _mesh.stamp_time(v_w)' : ''} where ${sameKey(facts, 'x', 'v_x')};
    v_n := v_n + 1;
  end loop;
  -- Back first: in replica mode the journal's triggers would take the lines for those of another node.
  perform set_config('session_replication_role', v_role, true);
  insert into _mesh.journal (origin, xid, tbl, op, w, m, img)
    select _mesh.me(), pg_current_xact_id()::text::bigint, ${quoteLiteral(facts.name)}, 'U', x._mesh_w, ${facts.byColumn ? 'x._mesh_m' : 'null'}, ${imageOf(facts, 'x')} from ${facts.table} x where ${keyText(facts, 'x')} = any (v_keys);
  return v_n;
end $mesh$;`;
}
