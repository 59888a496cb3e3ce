-- A mesh of PostgreSQL nodes that all accept writes. Written by: pgweave mesh generate
-- Apply it to every node with: pgweave mesh apply-schema      (one transaction a node)
-- Every local change is one line of _mesh.journal, which alone is replicated; triggers merge the lines of other nodes. See docs/mesh.md.
-- Tables: "My App"."Ev""il $1 "

create schema if not exists "My App";

create schema _mesh;
comment on schema _mesh is 'pgweave mesh: journal, clock and tombstones. Made by pgweave mesh generate or adopt.';

-- Who this node is. Constant functions rather than settings: a session could override a setting. A node that is joining or has left refuses writes.
do $mesh$
begin
  if current_setting('pgweave.node_id', true) is null or current_setting('pgweave.node_name', true) is null then
    raise exception 'pgweave.node_id and pgweave.node_name are not set' using hint = 'Run this file with: pgweave mesh apply-schema';
  end if;
end $mesh$;
create function _mesh.become(id bigint, name text) returns void language plpgsql set search_path = pg_catalog, pg_temp as $mesh$
begin
  execute format('create or replace function _mesh.me() returns bigint immutable parallel safe language sql return %s::bigint', id);
  execute format('create or replace function _mesh.my_name() returns text immutable parallel safe language sql return %L::text', name);
end $mesh$;
create function _mesh.refuse_writes(why text) returns void language plpgsql set search_path = pg_catalog, pg_temp as $mesh$
begin
  execute format('create or replace function _mesh.me() returns bigint volatile language plpgsql as %L',
    format('begin raise exception using errcode = ''25006'', message = %L; end', why));
end $mesh$;
select _mesh.become(current_setting('pgweave.node_id')::bigint, current_setting('pgweave.node_name'));

-- Members as this node knows them. acked: up to which transaction of each node they have applied; closed: what they have forgotten (see collect()).
create table _mesh.node (
  id bigint primary key check (id between 1 and 511),
  name text not null unique,
  state text not null check (state in ('joining', 'active', 'removed')),
  acked jsonb not null default '{}',
  closed jsonb not null default '{}',
  ready boolean not null default false,  -- of a node that joins by base backup: what the backup must contain
  seen_at timestamptz  -- last heartbeat that arrived; of this node itself: last maintain()
);
insert into _mesh.node (id, name, state, seen_at) values (_mesh.me(), _mesh.my_name(), 'active', clock_timestamp());
create table _mesh.format (version int not null);
insert into _mesh.format values (1);
-- Tables in the mesh. digest: the generated definition, so that nodes with different ones are found.
create table _mesh.tbl (name text primary key, rel regclass not null, base text not null, mode text not null, sent text[] not null, keys text[] not null, counters text[] not null, digest text not null);
-- Up to which transaction of each node everything has been applied here; and what has been closed here.
create table _mesh.applied (origin bigint primary key, xid bigint not null);
create table _mesh.closed (origin bigint primary key, xid bigint not null);
-- Bumped where a row is hidden, so that REPEATABLE READ writers notice.
create table _mesh.epoch (tbl text primary key, n bigint not null default 0);

-- Every local change is one line here; this table alone is published. Lines of other nodes are merged on arrival and never stored.
create table _mesh.journal (
  origin bigint not null,
  xid bigint not null,
  tbl text,
  op "char" not null,       -- I inserted, U updated, D deleted, H heartbeat
  w bigint not null,        -- the stamp
  m jsonb,                  -- stamps by column and counters, for tables that are merged by column
  img text[]                -- values as text, in the order of _mesh.tbl.sent
);
-- What was overruled or hidden, and by what.
create table _mesh.conflict (
  at timestamptz not null default clock_timestamp(),
  tbl text not null,
  key text not null,
  kind text not null,
  origin bigint,
  stamp bigint,
  detail jsonb
);
create index on _mesh.conflict (at);

-- The hybrid logical clock. The sequence holds the highest foreign stamp that was ahead of this node's own clock.
create sequence _mesh.clock minvalue 1;
select setval('_mesh.clock', 1);
create function _mesh.wall() returns bigint volatile language sql return ((date_part('epoch', clock_timestamp()) - 1577836800) * 1000000)::bigint;
create function _mesh.max_drift() returns bigint immutable parallel safe language sql return 5000000::bigint;
create function _mesh.next_stamp(above bigint) returns bigint volatile language sql
  return (greatest(_mesh.wall(), (above >> 9) + 1, pg_sequence_last_value('_mesh.clock'::regclass) + 1) << 9) | _mesh.me();
-- Floating point is fast and, given the same stamp, the same on every node.
create function _mesh.stamp_time(w bigint) returns timestamptz immutable parallel safe language sql return to_timestamp((w >> 9) / 1000000.0::float8 + 1577836800);
create function _mesh.raise_clock(t bigint) returns void language plpgsql set search_path = pg_catalog, pg_temp as $mesh$
begin
  if t > coalesce(pg_sequence_last_value('_mesh.clock'::regclass), 0) then
    -- A session lock, held for the moment of reading and raising: two sessions may not undo one another's raise.
    perform pg_advisory_lock(4713, 0);
    begin
      if t > coalesce(pg_sequence_last_value('_mesh.clock'::regclass), 0) then perform setval('_mesh.clock', t); end if;
    exception when query_canceled or others then
      -- The end of a transaction does not release it: a session that was cancelled just here would hold up everybody.
      perform pg_advisory_unlock(4713, 0);
      raise;
    end;
    perform pg_advisory_unlock(4713, 0);
  end if;
end $mesh$;
-- Called for stamps ahead of the own clock: far ahead is refused, or one wrong clock would drag all others along.
create function _mesh.see(stamp bigint, origin bigint) returns void language plpgsql set search_path = pg_catalog, pg_temp as $mesh$
declare ahead bigint := (stamp >> 9) - _mesh.wall();
begin
  if ahead > _mesh.max_drift() then
    raise exception using errcode = '55000',
      message = format('a change of node %s is stamped %s s ahead of this node''s clock; at most %s s are allowed',
        coalesce((select name from _mesh.node n where n.id = origin), origin::text), round(ahead / 1000000.0, 1), round(_mesh.max_drift() / 1000000.0, 1)),
      hint = 'Correct the clocks (NTP) of both nodes. Changes of that node wait until then; nothing is lost.';
  end if;
  perform _mesh.raise_clock(stamp >> 9);
end $mesh$;

-- These two are bound when they are made, whatever a writer's search_path: triggers call them with the owner's rights.
create function _mesh.bucket(hash bigint) returns int immutable parallel safe language sql return (hash & 511)::int;
create function _mesh.old_snapshot() returns boolean stable parallel safe language sql return current_setting('transaction_isolation') <> 'read committed';
-- Locks by bucket of a key: writers share, the merge is alone where a key may come to life or be hidden. Buckets bound the lock table.
create function _mesh.lock(class int, buckets bigint[], alone boolean) returns void language plpgsql set search_path = pg_catalog, pg_temp as $mesh$
declare b int;
begin
  for b in select distinct (x & 511)::int from unnest(buckets) x where x is not null order by 1 loop
    if alone then perform pg_advisory_xact_lock(class, b); else perform pg_advisory_xact_lock_shared(class, b); end if;
  end loop;
end $mesh$;
-- For REPEATABLE READ and SERIALIZABLE writers: fails with 40001 where a row of the table was hidden behind their snapshot.
create function _mesh.unmoved(name text) returns void language plpgsql set search_path = pg_catalog, pg_temp as $mesh$
begin
  if current_setting('transaction_isolation') <> 'read committed' then perform 1 from _mesh.epoch e where e.tbl = name for share; end if;
end $mesh$;
create function _mesh.column_stamp(m jsonb, c text) returns bigint immutable parallel safe language sql return coalesce((m -> 's' ->> c)::bigint, (m ->> 'b')::bigint);
create function _mesh.note(tbl text, key text, kind text, origin bigint, stamp bigint, detail jsonb) returns void language sql
  begin atomic insert into _mesh.conflict (tbl, key, kind, origin, stamp, detail) values (tbl, key, kind, origin, stamp, detail); end;

-- Whether a tombstone is tagged with a node that has left: whoever tells it again answers for it.
create function _mesh.gone(o bigint) returns boolean language sql stable set search_path = pg_catalog, pg_temp as $mesh$
  select exists (select from _mesh.node n where n.id = o and n.state = 'removed')
$mesh$;
-- Heartbeats tell what was applied, which is what tombstones wait for.
create function _mesh.heartbeat() returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $mesh$
begin
  perform _mesh.raise_clock(_mesh.wall());
  insert into _mesh.journal (origin, xid, op, w, m) values (_mesh.me(), 0, 'H', pg_snapshot_xmin(pg_current_snapshot())::text::bigint, jsonb_build_object(
    'acked', coalesce((select jsonb_object_agg(origin, xid) from _mesh.applied), '{}'),
    'closed', coalesce((select jsonb_object_agg(origin, xid) from _mesh.closed), '{}'), 'at', clock_timestamp()));
end $mesh$;
create function _mesh.control() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $mesh$
begin
  if new.op <> 'H' then
    raise exception 'table % is not in the mesh on this node', new.tbl using errcode = '55000', hint = 'Apply the same generated.sql on every node. The changes of that node wait until then; nothing is lost.';
  end if;
  update _mesh.node set acked = new.m -> 'acked', closed = new.m -> 'closed', seen_at = (new.m ->> 'at')::timestamptz where id = new.origin and state <> 'removed';
  if found then
    insert into _mesh.applied as a values (new.origin, new.w) on conflict (origin) do update set xid = greatest(a.xid, excluded.xid);
  end if;
  return null;
end $mesh$;
create trigger zz_control before insert on _mesh.journal for each row execute function _mesh.control();
alter table _mesh.journal enable replica trigger zz_control;

-- Up to which transaction of each node every member has applied everything. A node that is joining has acknowledged nothing: collection waits for it.
create function _mesh.stable() returns jsonb language sql stable set search_path = pg_catalog, pg_temp as $mesh$
  select coalesce(jsonb_object_agg(id, x), '{}') from (
    select o.id, least(
      case when o.id = _mesh.me() then 9223372036854775807 else coalesce((select xid from _mesh.applied where origin = o.id), 0) end,
      (select min(coalesce((n.acked ->> o.id::text)::bigint, 0)) from _mesh.node n where n.state <> 'removed' and n.id <> _mesh.me() and n.id <> o.id)) as x
    from _mesh.node o where o.state <> 'removed') q
$mesh$;
-- Collects tombstones that every member has applied, in two phases: first everybody forgets what a dead row was (closes it), then it is dropped where
-- everybody is known to have closed it. Dropping in one go would let a row be born again with counters of its former life on some nodes only.
create function _mesh.collect() returns bigint language plpgsql security definer set search_path = pg_catalog, pg_temp as $mesh$
declare st jsonb; everybody jsonb; t record; n bigint; total bigint := 0; highest bigint; top bigint := 0;
begin
  -- One at a time; and none while a repair or a removal tells tombstones again.
  if not pg_try_advisory_xact_lock(4714, 0) then return 0; end if;
  st := _mesh.stable();
  select coalesce(jsonb_object_agg(o.id, (select coalesce(min(coalesce((p.closed ->> o.id::text)::bigint, 0)), 9223372036854775807) from _mesh.node p where p.state <> 'removed' and p.id <> _mesh.me())), '{}')
    into everybody from _mesh.node o where o.state <> 'removed';
  for t in select * from _mesh.tbl order by name loop
    if t.mode = 'column' then
      execute format('update _mesh.%I set _mesh_m = null where _mesh_kind = ''d'' and _mesh_m is not null and ($1 ->> _mesh_o::text)::bigint > _mesh_ox', 'ghost_' || t.base) using st;
    end if;
    execute format('with gone as (delete from _mesh.%I where _mesh_kind = ''d'' and ($1 ->> _mesh_o::text)::bigint > _mesh_ox and ($2 ->> _mesh_o::text)::bigint > _mesh_ox returning _mesh_d) select count(*), max(_mesh_d) from gone', 'ghost_' || t.base)
      into n, highest using st, everybody;
    total := total + n;
    top := greatest(top, highest);
  end loop;
  insert into _mesh.closed as c select key::bigint, value::bigint from jsonb_each_text(st) on conflict (origin) do update set xid = greatest(c.xid, excluded.xid);
  perform _mesh.raise_clock(top >> 9);
  return total;
end $mesh$;
-- What pg_cron or a loop should call on every node, some times a minute: heartbeat, collection, and the journal emptied once it is large.
create function _mesh.maintain(journal_bytes bigint default 67108864, conflict_days int default 30) returns bigint language plpgsql security definer set search_path = pg_catalog, pg_temp as $mesh$
declare collected bigint;
begin
  perform _mesh.heartbeat();
  collected := _mesh.collect();
  delete from _mesh.conflict where at < clock_timestamp() - make_interval(days => conflict_days);
  update _mesh.node set seen_at = clock_timestamp() where id = _mesh.me();
  -- Lines are only read from the WAL, so they can go at once. Writers are not kept waiting for it, or, where there is never a moment without one, for a
  -- blink: a journal that could not be emptied under load would fill the disk.
  if pg_relation_size('_mesh.journal') > journal_bytes then
    begin
      if pg_relation_size('_mesh.journal') > journal_bytes * 4 then
        perform set_config('lock_timeout', '250ms', true);
        lock table _mesh.journal in access exclusive mode;
      else
        lock table _mesh.journal in access exclusive mode nowait;
      end if;
      truncate _mesh.journal;
    exception when lock_not_available or deadlock_detected then null;
    end;
  end if;
  return collected;
end $mesh$;

create table "My App"."Ev""il $1
" (
  "K 1" int,
  "k2" citext,
  "v" date,
  "n" numeric(8,2) default 0 not null,
  "g" int generated always as ("K 1" * 2) stored,
  updated_at timestamptz not null default now(),
  origin_node text,
  primary key ("K 1", "k2"),
  unique ("v", "k2"),
  check (n > 0)
);

-- ----------------------------------------------------------------------------------------------------
-- "My App"."Ev""il $1 " in the mesh: merged column by column, counters n
-- ----------------------------------------------------------------------------------------------------
alter table "My App"."Ev""il $1
" add column _mesh_w bigint not null default 512, add column _mesh_m jsonb;
-- Tombstones (d) and hidden rows (p); local to this node.
create table _mesh.ghost_my_app_ev_il_1__a6e21bec as select * from "My App"."Ev""il $1
" with no data;
alter table _mesh.ghost_my_app_ev_il_1__a6e21bec add column _mesh_kind "char", add column _mesh_d bigint, add column _mesh_o bigint, add column _mesh_ox bigint, add column _mesh_why text, add primary key ("K 1", "k2");
create index on _mesh.ghost_my_app_ev_il_1__a6e21bec (_mesh_w) where _mesh_kind = 'p';
create index on _mesh.ghost_my_app_ev_il_1__a6e21bec ("v", "k2") where _mesh_kind = 'p';
insert into _mesh.tbl values ('"My App"."Ev""il $1
"', '"My App"."Ev""il $1
"'::regclass, 'my_app_ev_il_1__a6e21bec', 'column',
  array['K 1', 'k2', 'v', 'n', 'origin_node'], array['K 1', 'k2'], array['n'], '8771e3fe');
insert into _mesh.epoch (tbl) values ('"My App"."Ev""il $1
"');

-- Before INSERT: stamp the row above whatever lies under its key.
create function _mesh.born_my_app_ev_il_1__a6e21bec() returns trigger language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $mesh$
#variable_conflict use_variable
declare
  v_g record;
  v_floor bigint;
begin
  perform _mesh.unmoved('"My App"."Ev""il $1
  "');
  perform _mesh.lock(652352492, array[case when new."v" is not null and new."k2" is not null then pg_catalog.hash_record_extended(row(new."v", new."k2"), 0) end], false);
  select max(x._mesh_w) into v_floor from _mesh.ghost_my_app_ev_il_1__a6e21bec x where x._mesh_kind = 'p' and ((x."v" = new."v" and x."k2" = new."k2"));
  perform pg_catalog.pg_advisory_xact_lock_shared(652352492, _mesh.bucket(pg_catalog.hash_record_extended(row(new."K 1", new."k2"), 0)));
  if _mesh.old_snapshot() then
    -- Fails with 40001 where a tombstone came behind our snapshot.
    insert into _mesh.ghost_my_app_ev_il_1__a6e21bec ("K 1", "k2", _mesh_kind) values (new."K 1", new."k2", 'x') on conflict do nothing;
    delete from _mesh.ghost_my_app_ev_il_1__a6e21bec x where x."K 1" = new."K 1" and x."k2" = new."k2" and x._mesh_kind = 'x';
  end if;
  select x._mesh_kind as kind, x._mesh_w as w, x._mesh_d as d into v_g from _mesh.ghost_my_app_ev_il_1__a6e21bec x where x."K 1" = new."K 1" and x."k2" = new."k2";
  if v_g.kind = 'p' then
    raise unique_violation using message = pg_catalog.format('key %s is held by a hidden row of %s', (array[new."K 1"::pg_catalog.text, case when new."k2" is distinct from null then pg_catalog.format('%s', new."k2") end]::pg_catalog.text), '"My App"."Ev""il $1
  "'), hint = 'The row lost a unique key to another row, or fails a constraint; see _mesh.conflict.';
  end if;
  new._mesh_w := _mesh.next_stamp(greatest(v_floor, v_g.w, v_g.d));
  new._mesh_m := pg_catalog.jsonb_build_object('g', coalesce(v_g.d, 0), 'b', new._mesh_w, 's', '{}'::pg_catalog.jsonb, 'c', pg_catalog.jsonb_build_object('n', pg_catalog.jsonb_build_object(_mesh.me()::pg_catalog.text, pg_catalog.jsonb_build_array(coalesce(new."n", 0), new._mesh_w))));
  new.updated_at := _mesh.stamp_time(new._mesh_w);
  new.origin_node := _mesh.my_name();
  return new;
end $mesh$;

-- Before UPDATE: the stamp. It runs with the writer's own rights and touches no table.
create function _mesh.stamp_my_app_ev_il_1__a6e21bec() returns trigger language plpgsql as $mesh$
#variable_conflict use_variable
declare
  v_m pg_catalog.jsonb;
begin
  new._mesh_w := _mesh.next_stamp(old._mesh_w);
  v_m := coalesce(old._mesh_m, pg_catalog.jsonb_build_object('g', 0, 'b', 512, 's', '{}'::pg_catalog.jsonb, 'c', pg_catalog.jsonb_build_object('n', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(old."n", 0), 512)))));
  if pg_catalog.record_image_ne(row(new."v"), row(old."v")) then v_m := pg_catalog.jsonb_set(v_m, '{s,"v"}', pg_catalog.to_jsonb(new._mesh_w)); end if;
  if new."n" is distinct from old."n" then
    v_m := pg_catalog.jsonb_set(v_m, array['c', 'n', _mesh.me()::pg_catalog.text], pg_catalog.jsonb_build_array(coalesce(new."n", 0)::numeric - coalesce(old."n", 0)::numeric + coalesce((v_m -> 'c' -> 'n' -> _mesh.me()::pg_catalog.text ->> 0)::numeric, 0), new._mesh_w));
  end if;
  new._mesh_m := v_m;
  new.updated_at := _mesh.stamp_time(new._mesh_w);
  new.origin_node := _mesh.my_name();
  return new;
end $mesh$;

-- Before UPDATE that changes the key or a unique key: the old key dies, the new one is born.
create function _mesh.rekey_my_app_ev_il_1__a6e21bec() returns trigger language plpgsql security definer set search_path = pg_catalog, public, pg_temp set bytea_output = 'hex' set datestyle = 'ISO, YMD' set extra_float_digits = 1 set intervalstyle = 'postgres' set lc_monetary = 'C' set xmloption = 'content' set timezone = 'UTC' as $mesh$
#variable_conflict use_variable
declare
  v_g record;
  v_d bigint;
  v_floor bigint;
  v_m jsonb;
begin
  if not (new."K 1" is distinct from old."K 1" or new."k2" is distinct from old."k2") then
    perform _mesh.unmoved('"My App"."Ev""il $1
  "');
    perform _mesh.lock(652352492, array[case when new."v" is not null and new."k2" is not null then pg_catalog.hash_record_extended(row(new."v", new."k2"), 0) end, case when old."v" is not null and old."k2" is not null then pg_catalog.hash_record_extended(row(old."v", old."k2"), 0) end], false);
    select max(x._mesh_w) into v_floor from _mesh.ghost_my_app_ev_il_1__a6e21bec x where x._mesh_kind = 'p' and ((x."v" = new."v" and x."k2" = new."k2"));
    new._mesh_w := _mesh.next_stamp(greatest(v_floor, old._mesh_w));
    v_m := coalesce(old._mesh_m, pg_catalog.jsonb_build_object('g', 0, 'b', 512, 's', '{}'::pg_catalog.jsonb, 'c', pg_catalog.jsonb_build_object('n', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(old."n", 0), 512)))));
    if pg_catalog.record_image_ne(row(new."v"), row(old."v")) then v_m := pg_catalog.jsonb_set(v_m, '{s,"v"}', pg_catalog.to_jsonb(new._mesh_w)); end if;
    if new."n" is distinct from old."n" then
      v_m := pg_catalog.jsonb_set(v_m, array['c', 'n', _mesh.me()::pg_catalog.text], pg_catalog.jsonb_build_array(coalesce(new."n", 0)::numeric - coalesce(old."n", 0)::numeric + coalesce((v_m -> 'c' -> 'n' -> _mesh.me()::pg_catalog.text ->> 0)::numeric, 0), new._mesh_w));
    end if;
    new._mesh_m := v_m;
    new.updated_at := _mesh.stamp_time(new._mesh_w);
    new.origin_node := _mesh.my_name();
    return new;
  end if;
  v_d := _mesh.next_stamp(old._mesh_w);
  insert into _mesh.ghost_my_app_ev_il_1__a6e21bec as g ("K 1", "k2", "v", "n", "updated_at", "origin_node", _mesh_w, _mesh_m, _mesh_kind, _mesh_d, _mesh_o, _mesh_ox)
    values (old."K 1", old."k2", old."v", old."n", old."updated_at", old."origin_node", old._mesh_w, coalesce(old._mesh_m, pg_catalog.jsonb_build_object('g', 0, 'b', 512, 's', '{}'::pg_catalog.jsonb, 'c', pg_catalog.jsonb_build_object('n', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(old."n", 0), 512))))), 'd', v_d, _mesh.me(), pg_current_xact_id()::text::bigint)
    on conflict ("K 1", "k2") do update set _mesh_kind = 'd', _mesh_why = null, _mesh_w = greatest(g._mesh_w, excluded._mesh_w), _mesh_d = greatest(g._mesh_d, excluded._mesh_d), _mesh_o = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_o else g._mesh_o end, _mesh_ox = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_ox else g._mesh_ox end, "v" = excluded."v", "n" = excluded."n", "updated_at" = excluded."updated_at", "origin_node" = excluded."origin_node", _mesh_m = excluded._mesh_m;
  insert into _mesh.journal (origin, xid, tbl, op, w, m, img)
    values (_mesh.me(), pg_current_xact_id()::text::bigint, '"My App"."Ev""il $1
  "', 'D', v_d, coalesce(old._mesh_m, pg_catalog.jsonb_build_object('g', 0, 'b', 512, 's', '{}'::pg_catalog.jsonb, 'c', pg_catalog.jsonb_build_object('n', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(old."n", 0), 512))))) || pg_catalog.jsonb_build_object('w', old._mesh_w), array[old."K 1"::pg_catalog.text, case when old."k2" is distinct from null then pg_catalog.format('%s', old."k2") end, old."v"::pg_catalog.text, old."n"::pg_catalog.text, old."origin_node"::pg_catalog.text]);
  perform _mesh.unmoved('"My App"."Ev""il $1
  "');
  perform _mesh.lock(652352492, array[case when new."v" is not null and new."k2" is not null then pg_catalog.hash_record_extended(row(new."v", new."k2"), 0) end, case when old."v" is not null and old."k2" is not null then pg_catalog.hash_record_extended(row(old."v", old."k2"), 0) end], false);
  select max(x._mesh_w) into v_floor from _mesh.ghost_my_app_ev_il_1__a6e21bec x where x._mesh_kind = 'p' and ((x."v" = new."v" and x."k2" = new."k2"));
  perform pg_catalog.pg_advisory_xact_lock_shared(652352492, _mesh.bucket(pg_catalog.hash_record_extended(row(new."K 1", new."k2"), 0)));
  if _mesh.old_snapshot() then
    -- Fails with 40001 where a tombstone came behind our snapshot.
    insert into _mesh.ghost_my_app_ev_il_1__a6e21bec ("K 1", "k2", _mesh_kind) values (new."K 1", new."k2", 'x') on conflict do nothing;
    delete from _mesh.ghost_my_app_ev_il_1__a6e21bec x where x."K 1" = new."K 1" and x."k2" = new."k2" and x._mesh_kind = 'x';
  end if;
  select x._mesh_kind as kind, x._mesh_w as w, x._mesh_d as d into v_g from _mesh.ghost_my_app_ev_il_1__a6e21bec x where x."K 1" = new."K 1" and x."k2" = new."k2";
  if v_g.kind = 'p' then
    raise unique_violation using message = pg_catalog.format('key %s is held by a hidden row of %s', (array[new."K 1"::pg_catalog.text, case when new."k2" is distinct from null then pg_catalog.format('%s', new."k2") end]::pg_catalog.text), '"My App"."Ev""il $1
  "'), hint = 'The row lost a unique key to another row, or fails a constraint; see _mesh.conflict.';
  end if;
  new._mesh_w := _mesh.next_stamp(greatest(v_floor, v_g.w, v_g.d, old._mesh_w));
  new._mesh_m := pg_catalog.jsonb_build_object('g', coalesce(v_g.d, 0), 'b', new._mesh_w, 's', '{}'::pg_catalog.jsonb, 'c', pg_catalog.jsonb_build_object('n', pg_catalog.jsonb_build_object(_mesh.me()::pg_catalog.text, pg_catalog.jsonb_build_array(coalesce(new."n", 0), new._mesh_w))));
  new.updated_at := _mesh.stamp_time(new._mesh_w);
  new.origin_node := _mesh.my_name();
  return new;
end $mesh$;
create function _mesh.rekeyed_my_app_ev_il_1__a6e21bec() returns trigger language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $mesh$
#variable_conflict use_variable
begin
  perform _mesh.claim_my_app_ev_il_1__a6e21bec(new."K 1", new."k2");
  return null;
end $mesh$;

-- After the statement: its rows go into the journal.
create function _mesh.claim_my_app_ev_il_1__a6e21bec(v_1 "My App"."Ev""il $1
"."K 1"%type, v_2 "My App"."Ev""il $1
"."k2"%type) returns bigint language plpgsql set search_path = pg_catalog, public, pg_temp set bytea_output = 'hex' set datestyle = 'ISO, YMD' set extra_float_digits = 1 set intervalstyle = 'postgres' set lc_monetary = 'C' set xmloption = 'content' set timezone = 'UTC' as $mesh$
#variable_conflict use_variable
declare
  v_g record;
  v_x "My App"."Ev""il $1
";
  v_xact constant bigint := pg_current_xact_id()::text::bigint;
  v_role text := current_setting('session_replication_role');
begin
  -- Locked, so that a merge that is changing the tombstone is waited for.
  select g._mesh_kind as kind, g._mesh_d as d into v_g from _mesh.ghost_my_app_ev_il_1__a6e21bec g where g."K 1" = v_1 and g."k2" = v_2 for update;
  if not found then return v_xact; end if;
  select * into v_x from "My App"."Ev""il $1
" x where x."K 1" = v_1 and x."k2" = v_2;
  if not found then return v_xact; end if;
  if v_g.kind = 'p' or v_g.d >= v_x._mesh_w then
    raise serialization_failure using message = 'a row of "My App"."Ev""il $1
" was deleted or hidden by another session or node at the same time', hint = 'Try the transaction again.';
  end if;
  delete from _mesh.ghost_my_app_ev_il_1__a6e21bec g where g."K 1" = v_1 and g."k2" = v_2;
  if v_g.d > (v_x._mesh_m ->> 'g')::bigint then
    -- Stamped before this tombstone could be seen. The life begins after it, or counters of the former one would go on elsewhere. No trigger may stamp the row
    -- again, but a foreign key that is checked later would overlook a row that was changed past it.
    if exists (select from pg_constraint k where k.conrelid = '"My App"."Ev""il $1
"'::regclass and k.contype = 'f' and k.condeferrable) then
      raise serialization_failure using message = 'a row of "My App"."Ev""il $1
" was deleted or hidden by another session or node at the same time', hint = 'Try the transaction again.';
    end if;
    v_x._mesh_m := jsonb_set(v_x._mesh_m, '{g}', to_jsonb(v_g.d));
    perform set_config('session_replication_role', 'replica', true);
    update "My App"."Ev""il $1
" x set _mesh_m = v_x._mesh_m where x."K 1" = v_1 and x."k2" = v_2;
    perform set_config('session_replication_role', v_role, true);
    insert into _mesh.journal (origin, xid, tbl, op, w, m, img) values (_mesh.me(), v_xact, '"My App"."Ev""il $1
"', 'U', v_x._mesh_w, v_x._mesh_m, array[v_x."K 1"::pg_catalog.text, case when v_x."k2" is distinct from null then pg_catalog.format('%s', v_x."k2") end, v_x."v"::pg_catalog.text, v_x."n"::pg_catalog.text, v_x."origin_node"::pg_catalog.text]);
  end if;
  return v_xact;
end $mesh$;
create function _mesh.inserted_my_app_ev_il_1__a6e21bec() returns trigger language plpgsql security definer set search_path = pg_catalog, public, pg_temp set bytea_output = 'hex' set datestyle = 'ISO, YMD' set extra_float_digits = 1 set intervalstyle = 'postgres' set lc_monetary = 'C' set xmloption = 'content' set timezone = 'UTC' as $mesh$
#variable_conflict use_variable
declare
  v_xact constant bigint := pg_catalog.pg_current_xact_id()::pg_catalog.text::bigint;
begin
  insert into _mesh.journal (origin, xid, tbl, op, w, m, img)
    select _mesh.me(), case when exists (select from _mesh.ghost_my_app_ev_il_1__a6e21bec x where x."K 1" = n."K 1" and x."k2" = n."k2" offset 0) then _mesh.claim_my_app_ev_il_1__a6e21bec(n."K 1", n."k2") else v_xact end,
      '"My App"."Ev""il $1
  "', 'I', n._mesh_w, n._mesh_m, array[n."K 1"::pg_catalog.text, case when n."k2" is distinct from null then pg_catalog.format('%s', n."k2") end, n."v"::pg_catalog.text, n."n"::pg_catalog.text, n."origin_node"::pg_catalog.text] from new_rows n;
  return null;
end $mesh$;
create function _mesh.updated_my_app_ev_il_1__a6e21bec() returns trigger language plpgsql security definer set search_path = pg_catalog, public, pg_temp set bytea_output = 'hex' set datestyle = 'ISO, YMD' set extra_float_digits = 1 set intervalstyle = 'postgres' set lc_monetary = 'C' set xmloption = 'content' set timezone = 'UTC' as $mesh$
#variable_conflict use_variable
declare
  v_xact constant bigint := pg_catalog.pg_current_xact_id()::pg_catalog.text::bigint;
  v_o record;
  v_was "My App"."Ev""il $1
  ";
begin
  insert into _mesh.journal (origin, xid, tbl, op, w, m, img)
    select _mesh.me(), v_xact, '"My App"."Ev""il $1
  "', 'U', n._mesh_w, n._mesh_m, array[n."K 1"::pg_catalog.text, case when n."k2" is distinct from null then pg_catalog.format('%s', n."k2") end, n."v"::pg_catalog.text, n."n"::pg_catalog.text, n."origin_node"::pg_catalog.text] from new_rows n;
  if exists (select from _mesh.ghost_my_app_ev_il_1__a6e21bec x where x._mesh_kind operator(pg_catalog.=) 'p') then
    for v_o in select * from old_rows loop
      v_was."K 1" := v_o."K 1";
      v_was."k2" := v_o."k2";
      v_was."v" := v_o."v";
      v_was."n" := v_o."n";
      v_was."updated_at" := v_o."updated_at";
      v_was."origin_node" := v_o."origin_node";
      perform _mesh.promote_my_app_ev_il_1__a6e21bec(v_was);
    end loop;
  end if;
  return null;
end $mesh$;
create function _mesh.deleted_my_app_ev_il_1__a6e21bec() returns trigger language plpgsql security definer set search_path = pg_catalog, public, pg_temp set bytea_output = 'hex' set datestyle = 'ISO, YMD' set extra_float_digits = 1 set intervalstyle = 'postgres' set lc_monetary = 'C' set xmloption = 'content' set timezone = 'UTC' as $mesh$
#variable_conflict use_variable
declare
  v_o record;
  v_was "My App"."Ev""il $1
  ";
begin
  if exists (select from old_rows o join "My App"."Ev""il $1
  " x on x."K 1" = o."K 1" and x."k2" = o."k2") then
    raise feature_not_supported using message = 'a row of "My App"."Ev""il $1
  " was deleted and inserted again in one statement', hint = 'The table is merged by column. Use two statements, or UPDATE.';
  end if;
  with dead as (
    insert into _mesh.ghost_my_app_ev_il_1__a6e21bec as g ("K 1", "k2", "v", "n", "updated_at", "origin_node", _mesh_w, _mesh_m, _mesh_kind, _mesh_d, _mesh_o, _mesh_ox)
    select o."K 1", o."k2", o."v", o."n", o."updated_at", o."origin_node", o._mesh_w, coalesce(o._mesh_m, pg_catalog.jsonb_build_object('g', 0, 'b', 512, 's', '{}'::pg_catalog.jsonb, 'c', pg_catalog.jsonb_build_object('n', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(o."n", 0), 512))))), 'd', _mesh.next_stamp(o._mesh_w), _mesh.me(), pg_current_xact_id()::text::bigint from old_rows o
    where not exists (select from "My App"."Ev""il $1
  " x where x."K 1" = o."K 1" and x."k2" = o."k2")
    on conflict ("K 1", "k2") do update set _mesh_kind = 'd', _mesh_why = null, _mesh_w = greatest(g._mesh_w, excluded._mesh_w), _mesh_d = greatest(g._mesh_d, excluded._mesh_d), _mesh_o = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_o else g._mesh_o end, _mesh_ox = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_ox else g._mesh_ox end, "v" = excluded."v", "n" = excluded."n", "updated_at" = excluded."updated_at", "origin_node" = excluded."origin_node", _mesh_m = excluded._mesh_m
    returning g.*)
  insert into _mesh.journal (origin, xid, tbl, op, w, m, img)
    select _mesh.me(), pg_current_xact_id()::text::bigint, '"My App"."Ev""il $1
  "', 'D', n._mesh_d, n._mesh_m || pg_catalog.jsonb_build_object('w', n._mesh_w), array[n."K 1"::pg_catalog.text, case when n."k2" is distinct from null then pg_catalog.format('%s', n."k2") end, n."v"::pg_catalog.text, n."n"::pg_catalog.text, n."origin_node"::pg_catalog.text] from dead n;
  if exists (select from _mesh.ghost_my_app_ev_il_1__a6e21bec x where x._mesh_kind operator(pg_catalog.=) 'p') then
    for v_o in select * from old_rows loop
      v_was."K 1" := v_o."K 1";
      v_was."k2" := v_o."k2";
      v_was."v" := v_o."v";
      v_was."n" := v_o."n";
      v_was."updated_at" := v_o."updated_at";
      v_was."origin_node" := v_o."origin_node";
      perform _mesh.promote_my_app_ev_il_1__a6e21bec(v_was);
    end loop;
  end if;
  return null;
end $mesh$;

-- Before DELETE: whoever hides a row because of this one must wait, so that its release is noticed.
create function _mesh.release_my_app_ev_il_1__a6e21bec() returns trigger language plpgsql security definer set search_path = pg_catalog, public, pg_temp as $mesh$
#variable_conflict use_variable
begin
  perform _mesh.unmoved('"My App"."Ev""il $1
  "');
  perform _mesh.lock(652352492, array[case when old."v" is not null and old."k2" is not null then pg_catalog.hash_record_extended(row(old."v", old."k2"), 0) end], false);
  return old;
end $mesh$;

-- Before TRUNCATE: every row, hidden ones too, becomes a tombstone.
create function _mesh.emptied_my_app_ev_il_1__a6e21bec() returns trigger language plpgsql security definer set search_path = pg_catalog, public, pg_temp set bytea_output = 'hex' set datestyle = 'ISO, YMD' set extra_float_digits = 1 set intervalstyle = 'postgres' set lc_monetary = 'C' set xmloption = 'content' set timezone = 'UTC' as $mesh$
#variable_conflict use_variable
begin
  if _mesh.old_snapshot() then
    raise feature_not_supported using message = 'TRUNCATE of "My App"."Ev""il $1
  ", which is in a mesh, needs isolation level read committed', hint = 'Rows that came after the snapshot of the transaction would go on this node alone.';
  end if;
  with dead as (
    insert into _mesh.ghost_my_app_ev_il_1__a6e21bec as g ("K 1", "k2", "v", "n", "updated_at", "origin_node", _mesh_w, _mesh_m, _mesh_kind, _mesh_d, _mesh_o, _mesh_ox)
    select o."K 1", o."k2", o."v", o."n", o."updated_at", o."origin_node", o._mesh_w, coalesce(o._mesh_m, pg_catalog.jsonb_build_object('g', 0, 'b', 512, 's', '{}'::pg_catalog.jsonb, 'c', pg_catalog.jsonb_build_object('n', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(o."n", 0), 512))))), 'd', _mesh.next_stamp(o._mesh_w), _mesh.me(), pg_current_xact_id()::text::bigint from "My App"."Ev""il $1
  " o
    on conflict ("K 1", "k2") do update set _mesh_kind = 'd', _mesh_why = null, _mesh_w = greatest(g._mesh_w, excluded._mesh_w), _mesh_d = greatest(g._mesh_d, excluded._mesh_d), _mesh_o = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_o else g._mesh_o end, _mesh_ox = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_ox else g._mesh_ox end, "v" = excluded."v", "n" = excluded."n", "updated_at" = excluded."updated_at", "origin_node" = excluded."origin_node", _mesh_m = excluded._mesh_m
    returning g.*), hidden as (
    update _mesh.ghost_my_app_ev_il_1__a6e21bec g set _mesh_kind = 'd', _mesh_why = null, _mesh_d = _mesh.next_stamp(greatest(g._mesh_w, g._mesh_d)), _mesh_o = _mesh.me(), _mesh_ox = pg_current_xact_id()::text::bigint where g._mesh_kind = 'p' returning g.*)
  insert into _mesh.journal (origin, xid, tbl, op, w, m, img)
    select _mesh.me(), pg_current_xact_id()::text::bigint, '"My App"."Ev""il $1
  "', 'D', n._mesh_d, n._mesh_m || pg_catalog.jsonb_build_object('w', n._mesh_w), array[n."K 1"::pg_catalog.text, case when n."k2" is distinct from null then pg_catalog.format('%s', n."k2") end, n."v"::pg_catalog.text, n."n"::pg_catalog.text, n."origin_node"::pg_catalog.text] from (select * from dead union all select * from hidden) n;
  return null;
end $mesh$;

create trigger zzz_mesh_born before insert on "My App"."Ev""il $1
" for each row execute function _mesh.born_my_app_ev_il_1__a6e21bec();
create trigger zzz_mesh_stamp before update on "My App"."Ev""il $1
" for each row when (not (old."K 1" is distinct from new."K 1" or old."k2" is distinct from new."k2" or old."v" is distinct from new."v" or old."k2" is distinct from new."k2")) execute function _mesh.stamp_my_app_ev_il_1__a6e21bec();
create trigger zzz_mesh_rekey before update on "My App"."Ev""il $1
" for each row when (old."K 1" is distinct from new."K 1" or old."k2" is distinct from new."k2" or old."v" is distinct from new."v" or old."k2" is distinct from new."k2") execute function _mesh.rekey_my_app_ev_il_1__a6e21bec();
create trigger zzz_mesh_rekeyed after update on "My App"."Ev""il $1
" for each row when (old."K 1" is distinct from new."K 1" or old."k2" is distinct from new."k2") execute function _mesh.rekeyed_my_app_ev_il_1__a6e21bec();
create trigger zzz_mesh_inserted after insert on "My App"."Ev""il $1
" referencing new table as new_rows for each statement execute function _mesh.inserted_my_app_ev_il_1__a6e21bec();
create trigger zzz_mesh_updated after update on "My App"."Ev""il $1
" referencing old table as old_rows new table as new_rows for each statement execute function _mesh.updated_my_app_ev_il_1__a6e21bec();
create trigger zzz_mesh_deleted after delete on "My App"."Ev""il $1
" referencing old table as old_rows for each statement execute function _mesh.deleted_my_app_ev_il_1__a6e21bec();
create trigger zzz_mesh_release before delete on "My App"."Ev""il $1
" for each row execute function _mesh.release_my_app_ev_il_1__a6e21bec();
create trigger zzz_mesh_emptied before truncate on "My App"."Ev""il $1
" for each statement execute function _mesh.emptied_my_app_ev_il_1__a6e21bec();

-- Shows a live row, or hides it: visible is what passes its constraints and holds its unique keys against all live rows of lower (stamp, key).
create function _mesh.place_my_app_ev_il_1__a6e21bec(v_r "My App"."Ev""il $1
", v_origin bigint) returns void language plpgsql set search_path = pg_catalog, public, pg_temp as $mesh$
#variable_conflict use_variable
declare
  v_why text;
  v_winner text;
  v_g _mesh.ghost_my_app_ev_il_1__a6e21bec;
  v_rival "My App"."Ev""il $1
  ";
begin
  select x.* into v_g from _mesh.ghost_my_app_ev_il_1__a6e21bec x where x._mesh_kind = 'p' and ((x."v" = v_r."v" and x."k2" = v_r."k2")) and not (x."K 1" = v_r."K 1" and x."k2" = v_r."k2") and (x._mesh_w > v_r._mesh_w or (x._mesh_w = v_r._mesh_w and (array[x."K 1"::pg_catalog.text, case when x."k2" is distinct from null then pg_catalog.format('%s', x."k2") end]::pg_catalog.text) collate "C" > (array[v_r."K 1"::pg_catalog.text, case when v_r."k2" is distinct from null then pg_catalog.format('%s', v_r."k2") end]::pg_catalog.text) collate "C")) limit 1;
  if found then v_why := 'unique'; v_winner := (array[v_g."K 1"::pg_catalog.text, case when v_g."k2" is distinct from null then pg_catalog.format('%s', v_g."k2") end]::pg_catalog.text); end if;
  -- Every lower rival is hidden, whether this row ends up visible or not.
  for v_rival in select * from "My App"."Ev""il $1
  " x where ((x."v" = v_r."v" and x."k2" = v_r."k2")) and not (x."K 1" = v_r."K 1" and x."k2" = v_r."k2") for update loop
    if (v_rival._mesh_w > v_r._mesh_w or (v_rival._mesh_w = v_r._mesh_w and (array[v_rival."K 1"::pg_catalog.text, case when v_rival."k2" is distinct from null then pg_catalog.format('%s', v_rival."k2") end]::pg_catalog.text) collate "C" > (array[v_r."K 1"::pg_catalog.text, case when v_r."k2" is distinct from null then pg_catalog.format('%s', v_r."k2") end]::pg_catalog.text) collate "C")) then
      v_why := 'unique';
      v_winner := (array[v_rival."K 1"::pg_catalog.text, case when v_rival."k2" is distinct from null then pg_catalog.format('%s', v_rival."k2") end]::pg_catalog.text);
    else
      delete from "My App"."Ev""il $1
  " x where x."K 1" = v_rival."K 1" and x."k2" = v_rival."k2";
      update _mesh.epoch set n = n + 1 where tbl = '"My App"."Ev""il $1
      "';
      insert into _mesh.ghost_my_app_ev_il_1__a6e21bec ("K 1", "k2", "v", "n", "updated_at", "origin_node", _mesh_w, _mesh_m, _mesh_kind, _mesh_d, _mesh_why) values (v_rival."K 1", v_rival."k2", v_rival."v", v_rival."n", v_rival."updated_at", v_rival."origin_node", v_rival._mesh_w, v_rival._mesh_m, 'p', 0, 'unique')
        on conflict ("K 1", "k2") do update set "K 1" = excluded."K 1", "k2" = excluded."k2", "v" = excluded."v", "n" = excluded."n", "updated_at" = excluded."updated_at", "origin_node" = excluded."origin_node", "_mesh_w" = excluded."_mesh_w", "_mesh_m" = excluded."_mesh_m", _mesh_kind = 'p', _mesh_d = 0, _mesh_why = excluded._mesh_why, _mesh_o = null, _mesh_ox = null;
      perform _mesh.note('"My App"."Ev""il $1
  "', (array[v_rival."K 1"::pg_catalog.text, case when v_rival."k2" is distinct from null then pg_catalog.format('%s', v_rival."k2") end]::pg_catalog.text), 'unique_parked', v_origin, v_rival._mesh_w, jsonb_build_object('winner', (array[v_r."K 1"::pg_catalog.text, case when v_r."k2" is distinct from null then pg_catalog.format('%s', v_r."k2") end]::pg_catalog.text), 'winner_stamp', v_r._mesh_w));
    end if;
  end loop;
  if v_why is null then
    begin
      v_r."n" := (select coalesce(sum((e.value ->> 0)::numeric), 0) from jsonb_each(v_r._mesh_m -> 'c' -> 'n') e);
      insert into "My App"."Ev""il $1
" ("K 1", "k2", "v", "n", "updated_at", "origin_node", _mesh_w, _mesh_m) overriding system value values (v_r."K 1", v_r."k2", v_r."v", v_r."n", v_r."updated_at", v_r."origin_node", v_r._mesh_w, v_r._mesh_m)
        on conflict ("K 1", "k2") do update set "K 1" = excluded."K 1", "k2" = excluded."k2", "v" = excluded."v", "n" = excluded."n", "updated_at" = excluded."updated_at", "origin_node" = excluded."origin_node", "_mesh_w" = excluded."_mesh_w", "_mesh_m" = excluded."_mesh_m";
      delete from _mesh.ghost_my_app_ev_il_1__a6e21bec x where x."K 1" = v_r."K 1" and x."k2" = v_r."k2";
      return;
    exception when check_violation or not_null_violation or numeric_value_out_of_range then
      v_why := 'invalid';
      v_winner := sqlerrm;
    end;
  end if;
  -- The same sums whatever hides the row: which reason came first differs from node to node.
  begin
    v_r."n" := (select coalesce(sum((e.value ->> 0)::numeric), 0) from jsonb_each(v_r._mesh_m -> 'c' -> 'n') e);
  exception when numeric_value_out_of_range then
    v_r."n" := null;
  end;
  delete from "My App"."Ev""il $1
" x where x."K 1" = v_r."K 1" and x."k2" = v_r."k2";
  update _mesh.epoch set n = n + 1 where tbl = '"My App"."Ev""il $1
  "';
  insert into _mesh.ghost_my_app_ev_il_1__a6e21bec ("K 1", "k2", "v", "n", "updated_at", "origin_node", _mesh_w, _mesh_m, _mesh_kind, _mesh_d, _mesh_why) values (v_r."K 1", v_r."k2", v_r."v", v_r."n", v_r."updated_at", v_r."origin_node", v_r._mesh_w, v_r._mesh_m, 'p', 0, v_why)
    on conflict ("K 1", "k2") do update set "K 1" = excluded."K 1", "k2" = excluded."k2", "v" = excluded."v", "n" = excluded."n", "updated_at" = excluded."updated_at", "origin_node" = excluded."origin_node", "_mesh_w" = excluded."_mesh_w", "_mesh_m" = excluded."_mesh_m", _mesh_kind = 'p', _mesh_d = 0, _mesh_why = excluded._mesh_why, _mesh_o = null, _mesh_ox = null;
  perform _mesh.note('"My App"."Ev""il $1
"', (array[v_r."K 1"::pg_catalog.text, case when v_r."k2" is distinct from null then pg_catalog.format('%s', v_r."k2") end]::pg_catalog.text), v_why || '_parked', v_origin, v_r._mesh_w, jsonb_build_object('by', v_winner));
end $mesh$;

-- Rows that were hidden because of this one are looked at again, the highest first.
create function _mesh.promote_my_app_ev_il_1__a6e21bec(v_was "My App"."Ev""il $1
") returns void language plpgsql set search_path = pg_catalog, public, pg_temp as $mesh$
#variable_conflict use_variable
declare
  v_candidate record;
  v_g _mesh.ghost_my_app_ev_il_1__a6e21bec;
  v_r "My App"."Ev""il $1
";
  v_tries int;
  v_role text := current_setting('session_replication_role');
begin
  for v_candidate in select x.* from _mesh.ghost_my_app_ev_il_1__a6e21bec x where x._mesh_kind = 'p' and x._mesh_why = 'unique' and ((x."v" = v_was."v" and x."k2" = v_was."k2")) order by x._mesh_w desc, (array[x."K 1"::pg_catalog.text, case when x."k2" is distinct from null then pg_catalog.format('%s', x."k2") end]::pg_catalog.text) collate "C" desc loop
    v_tries := 0;
    loop
      select * into v_g from _mesh.ghost_my_app_ev_il_1__a6e21bec x where x."K 1" = v_candidate."K 1" and x."k2" = v_candidate."k2" and x._mesh_kind = 'p' for update;
      exit when not found;
      v_r."K 1" := v_g."K 1";
      v_r."k2" := v_g."k2";
      v_r."v" := v_g."v";
      v_r."n" := v_g."n";
      v_r."updated_at" := v_g."updated_at";
      v_r."origin_node" := v_g."origin_node";
      v_r._mesh_w := v_g._mesh_w;
      v_r._mesh_m := v_g._mesh_m;
      begin
        -- The row comes back as it is everywhere: no trigger may stamp it.
        perform set_config('session_replication_role', 'replica', true);
        perform _mesh.place_my_app_ev_il_1__a6e21bec(v_r, null);
        perform set_config('session_replication_role', v_role, true);
        exit;
      exception when unique_violation then
        v_tries := v_tries + 1;
        if v_tries > 20 then raise; end if;
      end;
    end loop;
  end loop;
end $mesh$;

-- Merges a line of another node: the join of two states, the same whichever comes first.
create function _mesh.merge_my_app_ev_il_1__a6e21bec() returns trigger language plpgsql security definer set search_path = pg_catalog, public, pg_temp set bytea_output = 'hex' set datestyle = 'ISO, YMD' set extra_float_digits = 1 set intervalstyle = 'postgres' set lc_monetary = 'C' set xmloption = 'content' set timezone = 'UTC' as $mesh$
#variable_conflict use_variable
declare
  v_inc "My App"."Ev""il $1
  ";
  v_cur "My App"."Ev""il $1
  ";
  v_r "My App"."Ev""il $1
  ";
  v_g _mesh.ghost_my_app_ev_il_1__a6e21bec;
  v_state text;
  v_d bigint;
  v_locked boolean := false;
  v_was "My App"."Ev""il $1
  ";
  v_seen boolean;
  v_tries int := 0;
  v_m jsonb;
  v_im jsonb;
  v_iw bigint;
  v_b bigint;
  v_s1 bigint;
  v_s2 bigint;
  v_s jsonb;
  v_c jsonb;
  v_n text;
begin
  if cardinality(new.img) > 5 then
    raise exception using errcode = '55000', message = 'a change of "My App"."Ev""il $1
  " has more columns than this node knows', hint = 'Apply the newer schema on this node. The changes of that node wait until then; nothing is lost.';
  end if;
  v_inc."K 1" := new.img[1];
  v_inc."k2" := new.img[2];
  v_inc."v" := new.img[3];
  v_inc."n" := new.img[4];
  v_inc."origin_node" := new.img[5];
  v_inc.updated_at := _mesh.stamp_time(new.w);
  v_inc._mesh_w := new.w;
  v_inc._mesh_m := new.m;
  if (new.w >> 9) > _mesh.wall() then perform _mesh.see(new.w, new.origin); end if;
  perform pg_advisory_xact_lock(4712, 652352492);
  loop
    begin
      -- The key, its old and its new unique keys are locked before anything is read for good.
      select * into v_was from "My App"."Ev""il $1
      " x where x."K 1" = v_inc."K 1" and x."k2" = v_inc."k2";
      v_seen := found;
      if not v_seen then
        select * into v_g from _mesh.ghost_my_app_ev_il_1__a6e21bec x where x."K 1" = v_inc."K 1" and x."k2" = v_inc."k2" and x._mesh_kind = 'p';
        if found then
          v_was."K 1" := v_g."K 1";
          v_was."k2" := v_g."k2";
          v_was."v" := v_g."v";
          v_was."n" := v_g."n";
          v_was."updated_at" := v_g."updated_at";
          v_was."origin_node" := v_g."origin_node";
          v_was._mesh_w := coalesce(v_g._mesh_w, 0);
          v_was._mesh_m := v_g._mesh_m;
          v_seen := true;
        end if;
      end if;
      perform _mesh.lock(652352492, array[_mesh.bucket(pg_catalog.hash_record_extended(row(v_inc."K 1", v_inc."k2"), 0))::bigint] || case when v_seen then array[case when v_was."v" is not null and v_was."k2" is not null then pg_catalog.hash_record_extended(row(v_was."v", v_was."k2"), 0) end] end || case when new.op <> 'D' then array[case when v_inc."v" is not null and v_inc."k2" is not null then pg_catalog.hash_record_extended(row(v_inc."v", v_inc."k2"), 0) end] end, true);
      v_locked := true;
      select * into v_cur from "My App"."Ev""il $1
      " x where x."K 1" = v_inc."K 1" and x."k2" = v_inc."k2" for update;
      v_state := case when found then 'live' else 'none' end;
      select * into v_g from _mesh.ghost_my_app_ev_il_1__a6e21bec x where x."K 1" = v_inc."K 1" and x."k2" = v_inc."k2" for update;
      v_d := 0;
      if found then
        v_d := coalesce(v_g._mesh_d, 0);
        if v_state = 'none' then
          v_state := v_g._mesh_kind::text;
          v_cur."K 1" := v_g."K 1";
          v_cur."k2" := v_g."k2";
          v_cur."v" := v_g."v";
          v_cur."n" := v_g."n";
          v_cur."updated_at" := v_g."updated_at";
          v_cur."origin_node" := v_g."origin_node";
          v_cur._mesh_w := coalesce(v_g._mesh_w, 0);
          v_cur._mesh_m := v_g._mesh_m;
        end if;
      end if;
      if v_seen <> (v_state in ('live', 'p')) or (v_seen and (v_was."v" is distinct from v_cur."v" or v_was."k2" is distinct from v_cur."k2")) then continue; end if;
      if v_state = 'none' and not v_locked then
        -- Nobody may be about to insert this key.
        perform pg_advisory_xact_lock(652352492, _mesh.bucket(pg_catalog.hash_record_extended(row(v_inc."K 1", v_inc."k2"), 0)));
        v_locked := true;
        continue;
      end if;
      v_iw := case when new.op = 'D' then (new.m ->> 'w')::bigint else new.w end;
      v_im := coalesce(new.m - 'w', pg_catalog.jsonb_build_object('g', 0, 'b', 512, 's', '{}'::pg_catalog.jsonb, 'c', pg_catalog.jsonb_build_object('n', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(v_inc."n", 0), 512)))));
      v_r := v_inc;
      v_r._mesh_w := v_iw;
      v_r._mesh_m := v_im;
      if v_state in ('live', 'p') or (v_state = 'd' and v_cur._mesh_m is not null) then
        v_m := coalesce(v_cur._mesh_m, pg_catalog.jsonb_build_object('g', 0, 'b', 512, 's', '{}'::pg_catalog.jsonb, 'c', pg_catalog.jsonb_build_object('n', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(v_cur."n", 0), 512)))));
        if new.op <> 'D' and v_cur._mesh_w > v_iw and v_state <> 'd' and (v_iw & 511) <> (v_cur._mesh_w & 511) then perform _mesh.note('"My App"."Ev""il $1
      "', (array[v_inc."K 1"::pg_catalog.text, case when v_inc."k2" is distinct from null then pg_catalog.format('%s', v_inc."k2") end]::pg_catalog.text), 'update_merged', new.origin, new.w, jsonb_build_object('kept', v_cur._mesh_w, 'merged', to_jsonb(new.img))); end if;
        v_r := v_cur;
        v_b := greatest((v_m ->> 'b')::bigint, (v_im ->> 'b')::bigint);
        v_s := '{}';
        v_s1 := _mesh.column_stamp(v_m, 'v');
        v_s2 := _mesh.column_stamp(v_im, 'v');
        if v_s2 > v_s1 then v_r."v" := v_inc."v"; v_s1 := v_s2; end if;
        if v_s1 <> v_b then v_s := v_s || jsonb_build_object('v', v_s1); end if;
        if v_iw > v_cur._mesh_w then
          v_r."K 1" := v_inc."K 1";
          v_r."k2" := v_inc."k2";
          v_r."updated_at" := v_inc."updated_at";
          v_r."origin_node" := v_inc."origin_node";
          v_r.updated_at := _mesh.stamp_time(v_iw);
          v_r._mesh_w := v_iw;
        end if;
        v_c := v_m -> 'c';
        if (v_im ->> 'g')::bigint > (v_m ->> 'g')::bigint then v_c := v_im -> 'c';
        elsif (v_im ->> 'g')::bigint = (v_m ->> 'g')::bigint then
          for v_n in select jsonb_object_keys(v_im -> 'c' -> 'n') loop
            if coalesce((v_c -> 'n' -> v_n ->> 1)::bigint, 0) < (v_im -> 'c' -> 'n' -> v_n ->> 1)::bigint then v_c := jsonb_set(v_c, array['n', v_n], v_im -> 'c' -> 'n' -> v_n); end if;
          end loop;
        end if;
        v_r._mesh_m := jsonb_build_object('g', greatest((v_m ->> 'g')::bigint, (v_im ->> 'g')::bigint), 'b', v_b, 's', v_s, 'c', v_c);
      elsif v_state = 'd' then
        v_r._mesh_w := greatest(v_iw, v_cur._mesh_w);
      end if;
      v_r.updated_at := _mesh.stamp_time(v_r._mesh_w);
      if new.op = 'D' then v_d := greatest(v_d, new.w); end if;
      if v_d > v_r._mesh_w then
        if v_state = 'live' then delete from "My App"."Ev""il $1
      " x where x."K 1" = v_r."K 1" and x."k2" = v_r."k2"; end if;
        insert into _mesh.ghost_my_app_ev_il_1__a6e21bec as g ("K 1", "k2", "v", "n", "updated_at", "origin_node", _mesh_w, _mesh_m, _mesh_kind, _mesh_d, _mesh_o, _mesh_ox) values (v_r."K 1", v_r."k2", v_r."v", v_r."n", v_r."updated_at", v_r."origin_node", v_r._mesh_w, coalesce(v_r._mesh_m, pg_catalog.jsonb_build_object('g', 0, 'b', 512, 's', '{}'::pg_catalog.jsonb, 'c', pg_catalog.jsonb_build_object('n', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(v_r."n", 0), 512))))), 'd', v_d,
            case when new.op = 'D' and new.w = v_d then new.origin end, case when new.op = 'D' and new.w = v_d then new.xid end)
          on conflict ("K 1", "k2") do update set _mesh_kind = 'd', _mesh_why = null, _mesh_w = greatest(g._mesh_w, excluded._mesh_w), _mesh_d = greatest(g._mesh_d, excluded._mesh_d), _mesh_o = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_o else g._mesh_o end, _mesh_ox = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_ox else g._mesh_ox end, "v" = excluded."v", "n" = excluded."n", "updated_at" = excluded."updated_at", "origin_node" = excluded."origin_node", _mesh_m = excluded._mesh_m;
        if v_state in ('live', 'p') then perform _mesh.promote_my_app_ev_il_1__a6e21bec(v_was); end if;
      else
        perform _mesh.place_my_app_ev_il_1__a6e21bec(v_r, new.origin);
        if v_state = 'd' then perform _mesh.note('"My App"."Ev""il $1
      "', (array[v_r."K 1"::pg_catalog.text, case when v_r."k2" is distinct from null then pg_catalog.format('%s', v_r."k2") end]::pg_catalog.text), 'resurrected', new.origin, new.w, jsonb_build_object('deleted', v_d)); end if;
        if v_state in ('live', 'p') then perform _mesh.promote_my_app_ev_il_1__a6e21bec(v_was); end if;
      end if;
      return null;
    exception when unique_violation then
      -- A rival committed here in the meantime: look again.
      v_tries := v_tries + 1;
      if v_tries > 20 then raise; end if;
    end;
  end loop;
end $mesh$;

create trigger "apply_my_app_ev_il_1__a6e21bec" before insert on _mesh.journal for each row when (new.tbl = '"My App"."Ev""il $1
"') execute function _mesh.merge_my_app_ev_il_1__a6e21bec();
alter table _mesh.journal enable replica trigger "apply_my_app_ev_il_1__a6e21bec";

-- Every row (l), hidden row (p) and tombstone (d) of the table.
create function _mesh.state_my_app_ev_il_1__a6e21bec() returns table (key text, kind "char", w bigint, d bigint, img text[], m jsonb, why text) language sql stable set search_path = pg_catalog, public, pg_temp set bytea_output = 'hex' set datestyle = 'ISO, YMD' set extra_float_digits = 1 set intervalstyle = 'postgres' set lc_monetary = 'C' set xmloption = 'content' set timezone = 'UTC' as $mesh$
  select (array[x."K 1"::pg_catalog.text, case when x."k2" is distinct from null then pg_catalog.format('%s', x."k2") end]::pg_catalog.text), 'l'::"char", x._mesh_w, 0::bigint, array[x."K 1"::pg_catalog.text, case when x."k2" is distinct from null then pg_catalog.format('%s', x."k2") end, x."v"::pg_catalog.text, x."n"::pg_catalog.text, x."origin_node"::pg_catalog.text], coalesce(x._mesh_m, pg_catalog.jsonb_build_object('g', 0, 'b', 512, 's', '{}'::pg_catalog.jsonb, 'c', pg_catalog.jsonb_build_object('n', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(x."n", 0), 512))))), null::text from "My App"."Ev""il $1
" x
  union all
  select (array[g."K 1"::pg_catalog.text, case when g."k2" is distinct from null then pg_catalog.format('%s', g."k2") end]::pg_catalog.text), g._mesh_kind, coalesce(g._mesh_w, 0), coalesce(g._mesh_d, 0), array[g."K 1"::pg_catalog.text, case when g."k2" is distinct from null then pg_catalog.format('%s', g."k2") end, g."v"::pg_catalog.text, g."n"::pg_catalog.text, g."origin_node"::pg_catalog.text], g._mesh_m, g._mesh_why from _mesh.ghost_my_app_ev_il_1__a6e21bec g where g._mesh_kind in ('d', 'p')
$mesh$;

-- Tells the others again what this node holds: all of it, or these keys. Merging it twice changes nothing.
create function _mesh.reemit_my_app_ev_il_1__a6e21bec(v_keys text[] default null) returns bigint language plpgsql security definer set search_path = pg_catalog, public, pg_temp set bytea_output = 'hex' set datestyle = 'ISO, YMD' set extra_float_digits = 1 set intervalstyle = 'postgres' set lc_monetary = 'C' set xmloption = 'content' set timezone = 'UTC' as $mesh$
#variable_conflict use_variable
declare v_n bigint;
begin
  insert into _mesh.journal (origin, xid, tbl, op, w, m, img)
    select _mesh.me(), pg_current_xact_id()::text::bigint, '"My App"."Ev""il $1
"', case when s.kind = 'd' then 'D' else 'U' end, case when s.kind = 'd' then s.d else s.w end,
      case when s.kind = 'd' then coalesce(s.m, jsonb_build_object('g', 0, 'b', 0, 's', '{}'::jsonb, 'c', '{"n":{}}'::jsonb)) || jsonb_build_object('w', s.w) else s.m end, s.img
    from _mesh.state_my_app_ev_il_1__a6e21bec() s where v_keys is null or s.key = any (v_keys);
  get diagnostics v_n = row_count;
  update _mesh.ghost_my_app_ev_il_1__a6e21bec g set _mesh_o = _mesh.me(), _mesh_ox = pg_current_xact_id()::text::bigint
    where g._mesh_kind = 'd' and (v_keys is null or (array[g."K 1"::pg_catalog.text, case when g."k2" is distinct from null then pg_catalog.format('%s', g."k2") end]::pg_catalog.text) = any (v_keys)) and ((_mesh.me(), pg_current_xact_id()::text::bigint) > (g._mesh_o, g._mesh_ox) or _mesh.gone(g._mesh_o));
  return v_n;
end $mesh$;

-- Stamps these rows anew with all their values, for repair: where nodes hold other values under one stamp, the merge cannot decide.
create function _mesh.touch_my_app_ev_il_1__a6e21bec(v_keys text[]) returns bigint language plpgsql security definer set search_path = pg_catalog, public, pg_temp set bytea_output = 'hex' set datestyle = 'ISO, YMD' set extra_float_digits = 1 set intervalstyle = 'postgres' set lc_monetary = 'C' set xmloption = 'content' set timezone = 'UTC' as $mesh$
#variable_conflict use_variable
declare
  v_x "My App"."Ev""il $1
";
  v_w bigint;
  v_n bigint := 0;
  v_role text := current_setting('session_replication_role');
begin
  perform set_config('session_replication_role', 'replica', true);
  for v_x in select * from "My App"."Ev""il $1
" x where (array[x."K 1"::pg_catalog.text, case when x."k2" is distinct from null then pg_catalog.format('%s', x."k2") end]::pg_catalog.text) = any (v_keys) for update loop
    v_w := _mesh.next_stamp(v_x._mesh_w);
    update "My App"."Ev""il $1
" x set _mesh_w = v_w, _mesh_m = coalesce(x._mesh_m, pg_catalog.jsonb_build_object('g', 0, 'b', 512, 's', '{}'::pg_catalog.jsonb, 'c', pg_catalog.jsonb_build_object('n', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(x."n", 0), 512))))) || jsonb_build_object('g', v_w, 'b', v_w, 's', '{}'::jsonb), updated_at = _mesh.stamp_time(v_w) where x."K 1" = v_x."K 1" and x."k2" = v_x."k2";
    v_n := v_n + 1;
  end loop;
  -- Back first: in replica mode the journal's triggers would take the lines for those of another node.
  perform set_config('session_replication_role', v_role, true);
  insert into _mesh.journal (origin, xid, tbl, op, w, m, img)
    select _mesh.me(), pg_current_xact_id()::text::bigint, '"My App"."Ev""il $1
"', 'U', x._mesh_w, x._mesh_m, array[x."K 1"::pg_catalog.text, case when x."k2" is distinct from null then pg_catalog.format('%s', x."k2") end, x."v"::pg_catalog.text, x."n"::pg_catalog.text, x."origin_node"::pg_catalog.text] from "My App"."Ev""il $1
" x where (array[x."K 1"::pg_catalog.text, case when x."k2" is distinct from null then pg_catalog.format('%s', x."k2") end]::pg_catalog.text) = any (v_keys);
  return v_n;
end $mesh$;

-- Application roles run the light stamp trigger with their own rights; everything else belongs to the owner of the mesh.
revoke all on all functions in schema _mesh from public;
grant usage on schema _mesh to public;
grant select on sequence _mesh.clock to public;
grant execute on function _mesh.me(), _mesh.my_name(), _mesh.wall(), _mesh.next_stamp(bigint), _mesh.stamp_time(bigint), _mesh.column_stamp(jsonb, text) to public;
