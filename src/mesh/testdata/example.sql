-- A mesh of PostgreSQL nodes that all accept writes. Written by: pgweave mesh generate
-- Apply it to every node with: pgweave mesh apply-schema      (one transaction a node)
-- Every local change is one line of _mesh.journal, which alone is replicated; triggers merge the lines of other nodes. See docs/mesh.md.
-- Tables: public.customers, public.products, public.orders

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
create function _mesh.max_drift() returns bigint immutable parallel safe language sql return 60000000::bigint;
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

create table "public"."customers" (
  "id" uuid default gen_random_uuid(),
  "email" varchar(150) not null,
  "name" text,
  updated_at timestamptz not null default now(),
  origin_node text,
  primary key ("id"),
  unique ("email")
);

create table "public"."products" (
  "sku" text,
  "title" text not null,
  "price" numeric(10,2) not null,
  "stock" bigint default 0 not null,
  "views" bigint default 0 not null,
  updated_at timestamptz not null default now(),
  origin_node text,
  primary key ("sku"),
  check (price >= 0)
);

create table "public"."orders" (
  "id" uuid default gen_random_uuid(),
  "customer_id" uuid not null,
  "placed_at" timestamptz default now(),
  "total" numeric(10,2),
  updated_at timestamptz not null default now(),
  origin_node text,
  primary key ("id"),
  foreign key ("customer_id") references "public"."customers" ("id") on delete cascade
);
create index "orders_f8c50ae9_idx" on "public"."orders" ("customer_id");
create index "orders_1af519ef_idx" on "public"."orders" ("placed_at");

-- ----------------------------------------------------------------------------------------------------
-- public.customers in the mesh: merged as whole rows
-- ----------------------------------------------------------------------------------------------------
alter table "public"."customers" add column _mesh_w bigint not null default 512;
-- Tombstones (d) and hidden rows (p); local to this node.
create table _mesh.ghost_customers as select * from "public"."customers" with no data;
alter table _mesh.ghost_customers add column _mesh_kind "char", add column _mesh_d bigint, add column _mesh_o bigint, add column _mesh_ox bigint, add column _mesh_why text, add primary key ("id");
create index on _mesh.ghost_customers (_mesh_w) where _mesh_kind = 'p';
create index on _mesh.ghost_customers ("email") where _mesh_kind = 'p';
insert into _mesh.tbl values ('public.customers', '"public"."customers"'::regclass, 'customers', 'row',
  array['id', 'email', 'name', 'origin_node'], array['id'], '{}', '34f02af5');
insert into _mesh.epoch (tbl) values ('public.customers');

-- Before INSERT: stamp the row above whatever lies under its key.
create function _mesh.born_customers() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $mesh$
#variable_conflict use_variable
declare
  v_g record;
  v_floor bigint;
begin
  perform _mesh.unmoved('public.customers');
  perform _mesh.lock(1861161574, array[case when new."email" is not null then pg_catalog.hash_record_extended(row(new."email"), 0) end], false);
  select max(x._mesh_w) into v_floor from _mesh.ghost_customers x where x._mesh_kind = 'p' and ((x."email" = new."email"));
  perform pg_catalog.pg_advisory_xact_lock_shared(1861161574, _mesh.bucket(pg_catalog.hash_record_extended(row(new."id"), 0)));
  if _mesh.old_snapshot() then
    -- Fails with 40001 where a tombstone came behind our snapshot.
    insert into _mesh.ghost_customers ("id", _mesh_kind) values (new."id", 'x') on conflict do nothing;
    delete from _mesh.ghost_customers x where x."id" = new."id" and x._mesh_kind = 'x';
  end if;
  select x._mesh_kind as kind, x._mesh_w as w, x._mesh_d as d into v_g from _mesh.ghost_customers x where x."id" = new."id";
  if v_g.kind = 'p' then
    raise unique_violation using message = pg_catalog.format('key %s is held by a hidden row of %s', (new."id"::pg_catalog.text), 'public.customers'), hint = 'The row lost a unique key to another row, or fails a constraint; see _mesh.conflict.';
  end if;
  new._mesh_w := _mesh.next_stamp(greatest(v_floor, v_g.w, v_g.d));
  new.updated_at := _mesh.stamp_time(new._mesh_w);
  new.origin_node := _mesh.my_name();
  return new;
end $mesh$;

-- Before UPDATE: the stamp. It runs with the writer's own rights and touches no table.
create function _mesh.stamp_customers() returns trigger language plpgsql as $mesh$
#variable_conflict use_variable
begin
  new._mesh_w := _mesh.next_stamp(old._mesh_w);
  new.updated_at := _mesh.stamp_time(new._mesh_w);
  new.origin_node := _mesh.my_name();
  return new;
end $mesh$;

-- Before UPDATE that changes the key or a unique key: the old key dies, the new one is born.
create function _mesh.rekey_customers() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $mesh$
#variable_conflict use_variable
declare
  v_g record;
  v_d bigint;
  v_floor bigint;
begin
  if not (new."id" is distinct from old."id") then
    perform _mesh.unmoved('public.customers');
    perform _mesh.lock(1861161574, array[case when new."email" is not null then pg_catalog.hash_record_extended(row(new."email"), 0) end, case when old."email" is not null then pg_catalog.hash_record_extended(row(old."email"), 0) end], false);
    select max(x._mesh_w) into v_floor from _mesh.ghost_customers x where x._mesh_kind = 'p' and ((x."email" = new."email"));
    new._mesh_w := _mesh.next_stamp(greatest(v_floor, old._mesh_w));
    new.updated_at := _mesh.stamp_time(new._mesh_w);
    new.origin_node := _mesh.my_name();
    return new;
  end if;
  v_d := _mesh.next_stamp(old._mesh_w);
  insert into _mesh.ghost_customers as g ("id", _mesh_w, _mesh_kind, _mesh_d, _mesh_o, _mesh_ox)
    values (old."id", old._mesh_w, 'd', v_d, _mesh.me(), pg_current_xact_id()::text::bigint)
    on conflict ("id") do update set _mesh_kind = 'd', _mesh_why = null, _mesh_w = greatest(g._mesh_w, excluded._mesh_w), _mesh_d = greatest(g._mesh_d, excluded._mesh_d), _mesh_o = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_o else g._mesh_o end, _mesh_ox = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_ox else g._mesh_ox end;
  insert into _mesh.journal (origin, xid, tbl, op, w, m, img)
    values (_mesh.me(), pg_current_xact_id()::text::bigint, 'public.customers', 'D', v_d, null, array[old."id"::pg_catalog.text, null, null, null]);
  perform _mesh.unmoved('public.customers');
  perform _mesh.lock(1861161574, array[case when new."email" is not null then pg_catalog.hash_record_extended(row(new."email"), 0) end, case when old."email" is not null then pg_catalog.hash_record_extended(row(old."email"), 0) end], false);
  select max(x._mesh_w) into v_floor from _mesh.ghost_customers x where x._mesh_kind = 'p' and ((x."email" = new."email"));
  perform pg_catalog.pg_advisory_xact_lock_shared(1861161574, _mesh.bucket(pg_catalog.hash_record_extended(row(new."id"), 0)));
  if _mesh.old_snapshot() then
    -- Fails with 40001 where a tombstone came behind our snapshot.
    insert into _mesh.ghost_customers ("id", _mesh_kind) values (new."id", 'x') on conflict do nothing;
    delete from _mesh.ghost_customers x where x."id" = new."id" and x._mesh_kind = 'x';
  end if;
  select x._mesh_kind as kind, x._mesh_w as w, x._mesh_d as d into v_g from _mesh.ghost_customers x where x."id" = new."id";
  if v_g.kind = 'p' then
    raise unique_violation using message = pg_catalog.format('key %s is held by a hidden row of %s', (new."id"::pg_catalog.text), 'public.customers'), hint = 'The row lost a unique key to another row, or fails a constraint; see _mesh.conflict.';
  end if;
  new._mesh_w := _mesh.next_stamp(greatest(v_floor, v_g.w, v_g.d, old._mesh_w));
  new.updated_at := _mesh.stamp_time(new._mesh_w);
  new.origin_node := _mesh.my_name();
  return new;
end $mesh$;
create function _mesh.rekeyed_customers() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $mesh$
#variable_conflict use_variable
begin
  perform _mesh.claim_customers(new."id");
  return null;
end $mesh$;

-- After the statement: its rows go into the journal.
create function _mesh.claim_customers(v_1 "public"."customers"."id"%type) returns bigint language plpgsql set search_path = pg_catalog, pg_temp as $mesh$
#variable_conflict use_variable
declare
  v_g record;
  v_x "public"."customers";
  v_xact constant bigint := pg_current_xact_id()::text::bigint;
begin
  -- Locked, so that a merge that is changing the tombstone is waited for.
  select g._mesh_kind as kind, g._mesh_d as d into v_g from _mesh.ghost_customers g where g."id" = v_1 for update;
  if not found then return v_xact; end if;
  select * into v_x from "public"."customers" x where x."id" = v_1;
  if not found then return v_xact; end if;
  if v_g.kind = 'p' or v_g.d >= v_x._mesh_w then
    raise serialization_failure using message = 'a row of public.customers was deleted or hidden by another session or node at the same time', hint = 'Try the transaction again.';
  end if;
  delete from _mesh.ghost_customers g where g."id" = v_1;
  return v_xact;
end $mesh$;
create function _mesh.inserted_customers() returns trigger language plpgsql security definer as $mesh$
#variable_conflict use_variable
declare
  v_xact constant bigint := pg_catalog.pg_current_xact_id()::pg_catalog.text::bigint;
begin
  insert into _mesh.journal (origin, xid, tbl, op, w, m, img)
    select _mesh.me(), case when exists (select from _mesh.ghost_customers x where x."id" operator(pg_catalog.=) n."id" offset 0) then _mesh.claim_customers(n."id") else v_xact end,
      'public.customers', 'I', n._mesh_w, null, array[n."id"::pg_catalog.text, n."email"::pg_catalog.text, n."name"::pg_catalog.text, n."origin_node"::pg_catalog.text] from new_rows n;
  return null;
end $mesh$;
create function _mesh.updated_customers() returns trigger language plpgsql security definer as $mesh$
#variable_conflict use_variable
declare
  v_xact constant bigint := pg_catalog.pg_current_xact_id()::pg_catalog.text::bigint;
  v_o record;
  v_was "public"."customers";
begin
  insert into _mesh.journal (origin, xid, tbl, op, w, m, img)
    select _mesh.me(), v_xact, 'public.customers', 'U', n._mesh_w, null, array[n."id"::pg_catalog.text, n."email"::pg_catalog.text, n."name"::pg_catalog.text, n."origin_node"::pg_catalog.text] from new_rows n;
  if exists (select from _mesh.ghost_customers x where x._mesh_kind operator(pg_catalog.=) 'p') then
    for v_o in select * from old_rows loop
      v_was."id" := v_o."id";
      v_was."email" := v_o."email";
      v_was."name" := v_o."name";
      v_was."updated_at" := v_o."updated_at";
      v_was."origin_node" := v_o."origin_node";
      perform _mesh.promote_customers(v_was);
    end loop;
  end if;
  return null;
end $mesh$;
create function _mesh.deleted_customers() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $mesh$
#variable_conflict use_variable
declare
  v_o record;
  v_was "public"."customers";
begin
  if exists (select from old_rows o join "public"."customers" x on x."id" = o."id" where x._mesh_w <= o._mesh_w) then
    raise serialization_failure using message = 'a row of public.customers was deleted and inserted again in one statement while the clock stood still';
  end if;
  with dead as (
    insert into _mesh.ghost_customers as g ("id", _mesh_w, _mesh_kind, _mesh_d, _mesh_o, _mesh_ox)
    select o."id", o._mesh_w, 'd', _mesh.next_stamp(o._mesh_w), _mesh.me(), pg_current_xact_id()::text::bigint from old_rows o
    where not exists (select from "public"."customers" x where x."id" = o."id")
    on conflict ("id") do update set _mesh_kind = 'd', _mesh_why = null, _mesh_w = greatest(g._mesh_w, excluded._mesh_w), _mesh_d = greatest(g._mesh_d, excluded._mesh_d), _mesh_o = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_o else g._mesh_o end, _mesh_ox = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_ox else g._mesh_ox end
    returning g.*)
  insert into _mesh.journal (origin, xid, tbl, op, w, m, img)
    select _mesh.me(), pg_current_xact_id()::text::bigint, 'public.customers', 'D', n._mesh_d, null, array[n."id"::pg_catalog.text, null, null, null] from dead n;
  if exists (select from _mesh.ghost_customers x where x._mesh_kind operator(pg_catalog.=) 'p') then
    for v_o in select * from old_rows loop
      v_was."id" := v_o."id";
      v_was."email" := v_o."email";
      v_was."name" := v_o."name";
      v_was."updated_at" := v_o."updated_at";
      v_was."origin_node" := v_o."origin_node";
      perform _mesh.promote_customers(v_was);
    end loop;
  end if;
  return null;
end $mesh$;

-- Before DELETE: whoever hides a row because of this one must wait, so that its release is noticed.
create function _mesh.release_customers() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $mesh$
#variable_conflict use_variable
begin
  perform _mesh.unmoved('public.customers');
  perform _mesh.lock(1861161574, array[case when old."email" is not null then pg_catalog.hash_record_extended(row(old."email"), 0) end], false);
  return old;
end $mesh$;

-- Before TRUNCATE: every row, hidden ones too, becomes a tombstone.
create function _mesh.emptied_customers() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $mesh$
#variable_conflict use_variable
begin
  if _mesh.old_snapshot() then
    raise feature_not_supported using message = 'TRUNCATE of public.customers, which is in a mesh, needs isolation level read committed', hint = 'Rows that came after the snapshot of the transaction would go on this node alone.';
  end if;
  with dead as (
    insert into _mesh.ghost_customers as g ("id", _mesh_w, _mesh_kind, _mesh_d, _mesh_o, _mesh_ox)
    select o."id", o._mesh_w, 'd', _mesh.next_stamp(o._mesh_w), _mesh.me(), pg_current_xact_id()::text::bigint from "public"."customers" o
    on conflict ("id") do update set _mesh_kind = 'd', _mesh_why = null, _mesh_w = greatest(g._mesh_w, excluded._mesh_w), _mesh_d = greatest(g._mesh_d, excluded._mesh_d), _mesh_o = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_o else g._mesh_o end, _mesh_ox = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_ox else g._mesh_ox end
    returning g.*), hidden as (
    update _mesh.ghost_customers g set _mesh_kind = 'd', _mesh_why = null, _mesh_d = _mesh.next_stamp(greatest(g._mesh_w, g._mesh_d)), _mesh_o = _mesh.me(), _mesh_ox = pg_current_xact_id()::text::bigint where g._mesh_kind = 'p' returning g.*)
  insert into _mesh.journal (origin, xid, tbl, op, w, m, img)
    select _mesh.me(), pg_current_xact_id()::text::bigint, 'public.customers', 'D', n._mesh_d, null, array[n."id"::pg_catalog.text, null, null, null] from (select * from dead union all select * from hidden) n;
  return null;
end $mesh$;

create trigger zzz_mesh_born before insert on "public"."customers" for each row execute function _mesh.born_customers();
create trigger zzz_mesh_stamp before update on "public"."customers" for each row when (not (old."id" is distinct from new."id" or old."email" is distinct from new."email")) execute function _mesh.stamp_customers();
create trigger zzz_mesh_rekey before update on "public"."customers" for each row when (old."id" is distinct from new."id" or old."email" is distinct from new."email") execute function _mesh.rekey_customers();
create trigger zzz_mesh_rekeyed after update on "public"."customers" for each row when (old."id" is distinct from new."id") execute function _mesh.rekeyed_customers();
create trigger zzz_mesh_inserted after insert on "public"."customers" referencing new table as new_rows for each statement execute function _mesh.inserted_customers();
create trigger zzz_mesh_updated after update on "public"."customers" referencing old table as old_rows new table as new_rows for each statement execute function _mesh.updated_customers();
create trigger zzz_mesh_deleted after delete on "public"."customers" referencing old table as old_rows for each statement execute function _mesh.deleted_customers();
create trigger zzz_mesh_release before delete on "public"."customers" for each row execute function _mesh.release_customers();
create trigger zzz_mesh_emptied before truncate on "public"."customers" for each statement execute function _mesh.emptied_customers();

-- Shows a live row, or hides it: visible is what passes its constraints and holds its unique keys against all live rows of lower (stamp, key).
create function _mesh.place_customers(v_r "public"."customers", v_origin bigint) returns void language plpgsql set search_path = pg_catalog, pg_temp as $mesh$
#variable_conflict use_variable
declare
  v_why text;
  v_winner text;
  v_g _mesh.ghost_customers;
  v_rival "public"."customers";
begin
  select x.* into v_g from _mesh.ghost_customers x where x._mesh_kind = 'p' and ((x."email" = v_r."email")) and not (x."id" = v_r."id") and (x._mesh_w > v_r._mesh_w or (x._mesh_w = v_r._mesh_w and (x."id"::pg_catalog.text) collate "C" > (v_r."id"::pg_catalog.text) collate "C")) limit 1;
  if found then v_why := 'unique'; v_winner := (v_g."id"::pg_catalog.text); end if;
  -- Every lower rival is hidden, whether this row ends up visible or not.
  for v_rival in select * from "public"."customers" x where ((x."email" = v_r."email")) and not (x."id" = v_r."id") for update loop
    if (v_rival._mesh_w > v_r._mesh_w or (v_rival._mesh_w = v_r._mesh_w and (v_rival."id"::pg_catalog.text) collate "C" > (v_r."id"::pg_catalog.text) collate "C")) then
      v_why := 'unique';
      v_winner := (v_rival."id"::pg_catalog.text);
    else
      delete from "public"."customers" x where x."id" = v_rival."id";
      update _mesh.epoch set n = n + 1 where tbl = 'public.customers';
      insert into _mesh.ghost_customers ("id", "email", "name", "updated_at", "origin_node", _mesh_w, _mesh_kind, _mesh_d, _mesh_why) values (v_rival."id", v_rival."email", v_rival."name", v_rival."updated_at", v_rival."origin_node", v_rival._mesh_w, 'p', 0, 'unique')
        on conflict ("id") do update set "id" = excluded."id", "email" = excluded."email", "name" = excluded."name", "updated_at" = excluded."updated_at", "origin_node" = excluded."origin_node", "_mesh_w" = excluded."_mesh_w", _mesh_kind = 'p', _mesh_d = 0, _mesh_why = excluded._mesh_why, _mesh_o = null, _mesh_ox = null;
      perform _mesh.note('public.customers', (v_rival."id"::pg_catalog.text), 'unique_parked', v_origin, v_rival._mesh_w, jsonb_build_object('winner', (v_r."id"::pg_catalog.text), 'winner_stamp', v_r._mesh_w));
    end if;
  end loop;
  if v_why is null then
    begin

      insert into "public"."customers" ("id", "email", "name", "updated_at", "origin_node", _mesh_w) overriding system value values (v_r."id", v_r."email", v_r."name", v_r."updated_at", v_r."origin_node", v_r._mesh_w)
        on conflict ("id") do update set "id" = excluded."id", "email" = excluded."email", "name" = excluded."name", "updated_at" = excluded."updated_at", "origin_node" = excluded."origin_node", "_mesh_w" = excluded."_mesh_w";
      delete from _mesh.ghost_customers x where x."id" = v_r."id";
      return;
    exception when check_violation or not_null_violation or numeric_value_out_of_range then
      v_why := 'invalid';
      v_winner := sqlerrm;
    end;
  end if;
  delete from "public"."customers" x where x."id" = v_r."id";
  update _mesh.epoch set n = n + 1 where tbl = 'public.customers';
  insert into _mesh.ghost_customers ("id", "email", "name", "updated_at", "origin_node", _mesh_w, _mesh_kind, _mesh_d, _mesh_why) values (v_r."id", v_r."email", v_r."name", v_r."updated_at", v_r."origin_node", v_r._mesh_w, 'p', 0, v_why)
    on conflict ("id") do update set "id" = excluded."id", "email" = excluded."email", "name" = excluded."name", "updated_at" = excluded."updated_at", "origin_node" = excluded."origin_node", "_mesh_w" = excluded."_mesh_w", _mesh_kind = 'p', _mesh_d = 0, _mesh_why = excluded._mesh_why, _mesh_o = null, _mesh_ox = null;
  perform _mesh.note('public.customers', (v_r."id"::pg_catalog.text), v_why || '_parked', v_origin, v_r._mesh_w, jsonb_build_object('by', v_winner));
end $mesh$;

-- Rows that were hidden because of this one are looked at again, the highest first.
create function _mesh.promote_customers(v_was "public"."customers") returns void language plpgsql set search_path = pg_catalog, pg_temp as $mesh$
#variable_conflict use_variable
declare
  v_candidate record;
  v_g _mesh.ghost_customers;
  v_r "public"."customers";
  v_tries int;
  v_role text := current_setting('session_replication_role');
begin
  for v_candidate in select x.* from _mesh.ghost_customers x where x._mesh_kind = 'p' and x._mesh_why = 'unique' and ((x."email" = v_was."email")) order by x._mesh_w desc, (x."id"::pg_catalog.text) collate "C" desc loop
    v_tries := 0;
    loop
      select * into v_g from _mesh.ghost_customers x where x."id" = v_candidate."id" and x._mesh_kind = 'p' for update;
      exit when not found;
      v_r."id" := v_g."id";
      v_r."email" := v_g."email";
      v_r."name" := v_g."name";
      v_r."updated_at" := v_g."updated_at";
      v_r."origin_node" := v_g."origin_node";
      v_r._mesh_w := v_g._mesh_w;
      begin
        -- The row comes back as it is everywhere: no trigger may stamp it.
        perform set_config('session_replication_role', 'replica', true);
        perform _mesh.place_customers(v_r, null);
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
create function _mesh.merge_customers() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $mesh$
#variable_conflict use_variable
declare
  v_inc "public"."customers";
  v_cur "public"."customers";
  v_r "public"."customers";
  v_g _mesh.ghost_customers;
  v_state text;
  v_d bigint;
  v_locked boolean := false;
  v_was "public"."customers";
  v_seen boolean;
  v_tries int := 0;
begin
  if cardinality(new.img) > 4 then
    raise exception using errcode = '55000', message = 'a change of public.customers has more columns than this node knows', hint = 'Apply the newer schema on this node. The changes of that node wait until then; nothing is lost.';
  end if;
  v_inc."id" := new.img[1];
  v_inc."email" := new.img[2];
  v_inc."name" := new.img[3];
  v_inc."origin_node" := new.img[4];
  v_inc.updated_at := _mesh.stamp_time(new.w);
  v_inc._mesh_w := new.w;
  if (new.w >> 9) > _mesh.wall() then perform _mesh.see(new.w, new.origin); end if;
  perform pg_advisory_xact_lock(4712, 1861161574);
  loop
    begin
      -- The key, its old and its new unique keys are locked before anything is read for good.
      select * into v_was from "public"."customers" x where x."id" = v_inc."id";
      v_seen := found;
      if not v_seen then
        select * into v_g from _mesh.ghost_customers x where x."id" = v_inc."id" and x._mesh_kind = 'p';
        if found then
          v_was."id" := v_g."id";
          v_was."email" := v_g."email";
          v_was."name" := v_g."name";
          v_was."updated_at" := v_g."updated_at";
          v_was."origin_node" := v_g."origin_node";
          v_was._mesh_w := coalesce(v_g._mesh_w, 0);
          v_seen := true;
        end if;
      end if;
      perform _mesh.lock(1861161574, array[_mesh.bucket(pg_catalog.hash_record_extended(row(v_inc."id"), 0))::bigint] || case when v_seen then array[case when v_was."email" is not null then pg_catalog.hash_record_extended(row(v_was."email"), 0) end] end || case when new.op <> 'D' then array[case when v_inc."email" is not null then pg_catalog.hash_record_extended(row(v_inc."email"), 0) end] end, true);
      v_locked := true;
      select * into v_cur from "public"."customers" x where x."id" = v_inc."id" for update;
      v_state := case when found then 'live' else 'none' end;
      select * into v_g from _mesh.ghost_customers x where x."id" = v_inc."id" for update;
      v_d := 0;
      if found then
        v_d := coalesce(v_g._mesh_d, 0);
        if v_state = 'none' then
          v_state := v_g._mesh_kind::text;
          v_cur."id" := v_g."id";
          v_cur."email" := v_g."email";
          v_cur."name" := v_g."name";
          v_cur."updated_at" := v_g."updated_at";
          v_cur."origin_node" := v_g."origin_node";
          v_cur._mesh_w := coalesce(v_g._mesh_w, 0);
        end if;
      end if;
      if v_seen <> (v_state in ('live', 'p')) or (v_seen and (v_was."email" is distinct from v_cur."email")) then continue; end if;
      if v_state = 'none' and not v_locked then
        -- Nobody may be about to insert this key.
        perform pg_advisory_xact_lock(1861161574, _mesh.bucket(pg_catalog.hash_record_extended(row(v_inc."id"), 0)));
        v_locked := true;
        continue;
      end if;
      if v_state = 'none' then v_cur._mesh_w := 0; end if;
      if new.w <= greatest(v_cur._mesh_w, v_d) then
        if new.op = 'D' then
          if v_state in ('live', 'p') then if (new.w & 511) <> (greatest(v_cur._mesh_w, v_d) & 511) then perform _mesh.note('public.customers', (v_inc."id"::pg_catalog.text), 'delete_older', new.origin, new.w, jsonb_build_object('kept', greatest(v_cur._mesh_w, v_d), 'lost', to_jsonb(new.img))); end if;
          elsif v_state = 'd' and new.w = v_d then
            -- Told again, by a node that took the tombstone over.
            update _mesh.ghost_customers g set _mesh_o = new.origin, _mesh_ox = new.xid where g."id" = v_inc."id" and ((new.origin, new.xid) > (g._mesh_o, g._mesh_ox) or _mesh.gone(g._mesh_o));
          end if;
        else if (new.w & 511) <> (greatest(v_cur._mesh_w, v_d) & 511) then perform _mesh.note('public.customers', (v_inc."id"::pg_catalog.text), case when v_d > v_cur._mesh_w then 'update_deleted' else 'update_stale' end, new.origin, new.w, jsonb_build_object('kept', greatest(v_cur._mesh_w, v_d), 'lost', to_jsonb(new.img))); end if; end if;
        return null;
      end if;
      if new.op = 'D' then
        v_d := new.w;
        if v_state = 'none' then v_r := v_inc; v_r._mesh_w := 0; else v_r := v_cur; end if;
      else
        v_r := v_inc;
      end if;
      if v_d > v_r._mesh_w then
        if v_state = 'live' then delete from "public"."customers" x where x."id" = v_r."id"; end if;
        insert into _mesh.ghost_customers as g ("id", _mesh_w, _mesh_kind, _mesh_d, _mesh_o, _mesh_ox) values (v_r."id", v_r._mesh_w, 'd', v_d,
            case when new.op = 'D' and new.w = v_d then new.origin end, case when new.op = 'D' and new.w = v_d then new.xid end)
          on conflict ("id") do update set _mesh_kind = 'd', _mesh_why = null, _mesh_w = greatest(g._mesh_w, excluded._mesh_w), _mesh_d = greatest(g._mesh_d, excluded._mesh_d), _mesh_o = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_o else g._mesh_o end, _mesh_ox = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_ox else g._mesh_ox end;
        if v_state in ('live', 'p') then perform _mesh.promote_customers(v_was); end if;
      else
        perform _mesh.place_customers(v_r, new.origin);
        if v_state = 'd' then perform _mesh.note('public.customers', (v_r."id"::pg_catalog.text), 'resurrected', new.origin, new.w, jsonb_build_object('deleted', v_d)); end if;
        if v_state in ('live', 'p') then perform _mesh.promote_customers(v_was); end if;
      end if;
      return null;
    exception when unique_violation then
      -- A rival committed here in the meantime: look again.
      v_tries := v_tries + 1;
      if v_tries > 20 then raise; end if;
    end;
  end loop;
end $mesh$;

create trigger "apply_customers" before insert on _mesh.journal for each row when (new.tbl = 'public.customers') execute function _mesh.merge_customers();
alter table _mesh.journal enable replica trigger "apply_customers";

-- Every row (l), hidden row (p) and tombstone (d) of the table.
create function _mesh.state_customers() returns table (key text, kind "char", w bigint, d bigint, img text[], m jsonb, why text) language sql stable set search_path = pg_catalog, pg_temp as $mesh$
  select (x."id"::pg_catalog.text), 'l'::"char", x._mesh_w, 0::bigint, array[x."id"::pg_catalog.text, x."email"::pg_catalog.text, x."name"::pg_catalog.text, x."origin_node"::pg_catalog.text], null::jsonb, null::text from "public"."customers" x
  union all
  select (g."id"::pg_catalog.text), g._mesh_kind, coalesce(g._mesh_w, 0), coalesce(g._mesh_d, 0), case when g._mesh_kind = 'd' then array[g."id"::pg_catalog.text, null, null, null] else array[g."id"::pg_catalog.text, g."email"::pg_catalog.text, g."name"::pg_catalog.text, g."origin_node"::pg_catalog.text] end, null::jsonb, g._mesh_why from _mesh.ghost_customers g where g._mesh_kind in ('d', 'p')
$mesh$;

-- Tells the others again what this node holds: all of it, or these keys. Merging it twice changes nothing.
create function _mesh.reemit_customers(v_keys text[] default null) returns bigint language plpgsql security definer set search_path = pg_catalog, pg_temp as $mesh$
#variable_conflict use_variable
declare v_n bigint;
begin
  insert into _mesh.journal (origin, xid, tbl, op, w, m, img)
    select _mesh.me(), pg_current_xact_id()::text::bigint, 'public.customers', case when s.kind = 'd' then 'D' else 'U' end, case when s.kind = 'd' then s.d else s.w end,
      null, s.img
    from _mesh.state_customers() s where v_keys is null or s.key = any (v_keys);
  get diagnostics v_n = row_count;
  update _mesh.ghost_customers g set _mesh_o = _mesh.me(), _mesh_ox = pg_current_xact_id()::text::bigint
    where g._mesh_kind = 'd' and (v_keys is null or (g."id"::pg_catalog.text) = any (v_keys)) and ((_mesh.me(), pg_current_xact_id()::text::bigint) > (g._mesh_o, g._mesh_ox) or _mesh.gone(g._mesh_o));
  return v_n;
end $mesh$;

-- Stamps these rows anew with all their values, for repair: where nodes hold other values under one stamp, the merge cannot decide.
create function _mesh.touch_customers(v_keys text[]) returns bigint language plpgsql security definer set search_path = pg_catalog, pg_temp as $mesh$
#variable_conflict use_variable
declare
  v_x "public"."customers";
  v_w bigint;
  v_n bigint := 0;
  v_role text := current_setting('session_replication_role');
begin
  perform set_config('session_replication_role', 'replica', true);
  for v_x in select * from "public"."customers" x where (x."id"::pg_catalog.text) = any (v_keys) for update loop
    v_w := _mesh.next_stamp(v_x._mesh_w);
    update "public"."customers" x set _mesh_w = v_w, updated_at = _mesh.stamp_time(v_w) where x."id" = v_x."id";
    v_n := v_n + 1;
  end loop;
  -- Back first: in replica mode the journal's triggers would take the lines for those of another node.
  perform set_config('session_replication_role', v_role, true);
  insert into _mesh.journal (origin, xid, tbl, op, w, m, img)
    select _mesh.me(), pg_current_xact_id()::text::bigint, 'public.customers', 'U', x._mesh_w, null, array[x."id"::pg_catalog.text, x."email"::pg_catalog.text, x."name"::pg_catalog.text, x."origin_node"::pg_catalog.text] from "public"."customers" x where (x."id"::pg_catalog.text) = any (v_keys);
  return v_n;
end $mesh$;

-- ----------------------------------------------------------------------------------------------------
-- public.products in the mesh: merged column by column, counters stock, views
-- ----------------------------------------------------------------------------------------------------
alter table "public"."products" add column _mesh_w bigint not null default 512, add column _mesh_m jsonb;
-- Tombstones (d) and hidden rows (p); local to this node.
create table _mesh.ghost_products as select * from "public"."products" with no data;
alter table _mesh.ghost_products add column _mesh_kind "char", add column _mesh_d bigint, add column _mesh_o bigint, add column _mesh_ox bigint, add column _mesh_why text, add primary key ("sku");
insert into _mesh.tbl values ('public.products', '"public"."products"'::regclass, 'products', 'column',
  array['sku', 'title', 'price', 'stock', 'views', 'origin_node'], array['sku'], array['stock', 'views'], '69274a66');

-- Before INSERT: stamp the row above whatever lies under its key.
create function _mesh.born_products() returns trigger language plpgsql security definer as $mesh$
#variable_conflict use_variable
declare
  v_g record;
begin
  perform pg_catalog.pg_advisory_xact_lock_shared(828858292, _mesh.bucket(pg_catalog.hash_record_extended(row(new."sku"), 0)));
  if _mesh.old_snapshot() then
    -- Fails with 40001 where a tombstone came behind our snapshot.
    insert into _mesh.ghost_products ("sku", _mesh_kind) values (new."sku", 'x') on conflict do nothing;
    delete from _mesh.ghost_products x where x."sku" operator(pg_catalog.=) new."sku" and x._mesh_kind operator(pg_catalog.=) 'x';
  end if;
  select x._mesh_kind as kind, x._mesh_w as w, x._mesh_d as d into v_g from _mesh.ghost_products x where x."sku" operator(pg_catalog.=) new."sku";
  if v_g.kind operator(pg_catalog.=) 'p' then
    raise unique_violation using message = pg_catalog.format('key %s is held by a hidden row of %s', (new."sku"::pg_catalog.text), 'public.products'), hint = 'The row lost a unique key to another row, or fails a constraint; see _mesh.conflict.';
  end if;
  new._mesh_w := _mesh.next_stamp(greatest(v_g.w, v_g.d));
  new._mesh_m := pg_catalog.jsonb_build_object('g', coalesce(v_g.d, 0), 'b', new._mesh_w, 's', '{}'::pg_catalog.jsonb, 'c', pg_catalog.jsonb_build_object('stock', pg_catalog.jsonb_build_object(_mesh.me()::pg_catalog.text, pg_catalog.jsonb_build_array(coalesce(new."stock", 0), new._mesh_w)), 'views', pg_catalog.jsonb_build_object(_mesh.me()::pg_catalog.text, pg_catalog.jsonb_build_array(coalesce(new."views", 0), new._mesh_w))));
  new.updated_at := _mesh.stamp_time(new._mesh_w);
  new.origin_node := _mesh.my_name();
  return new;
end $mesh$;

-- Before UPDATE: the stamp. It runs with the writer's own rights and touches no table.
create function _mesh.stamp_products() returns trigger language plpgsql as $mesh$
#variable_conflict use_variable
declare
  v_m pg_catalog.jsonb;
begin
  new._mesh_w := _mesh.next_stamp(old._mesh_w);
  v_m := coalesce(old._mesh_m, pg_catalog.jsonb_build_object('g', 0, 'b', 512, 's', '{}'::pg_catalog.jsonb, 'c', pg_catalog.jsonb_build_object('stock', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(old."stock", 0), 512)), 'views', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(old."views", 0), 512)))));
  if pg_catalog.record_image_ne(row(new."title"), row(old."title")) then v_m := pg_catalog.jsonb_set(v_m, '{s,"title"}', pg_catalog.to_jsonb(new._mesh_w)); end if;
  if pg_catalog.record_image_ne(row(new."price"), row(old."price")) then v_m := pg_catalog.jsonb_set(v_m, '{s,"price"}', pg_catalog.to_jsonb(new._mesh_w)); end if;
  if new."stock" is distinct from old."stock" then
    v_m := pg_catalog.jsonb_set(v_m, array['c', 'stock', _mesh.me()::pg_catalog.text], pg_catalog.jsonb_build_array(coalesce(new."stock", 0)::numeric - coalesce(old."stock", 0)::numeric + coalesce((v_m -> 'c' -> 'stock' -> _mesh.me()::pg_catalog.text ->> 0)::numeric, 0), new._mesh_w));
  end if;
  if new."views" is distinct from old."views" then
    v_m := pg_catalog.jsonb_set(v_m, array['c', 'views', _mesh.me()::pg_catalog.text], pg_catalog.jsonb_build_array(coalesce(new."views", 0)::numeric - coalesce(old."views", 0)::numeric + coalesce((v_m -> 'c' -> 'views' -> _mesh.me()::pg_catalog.text ->> 0)::numeric, 0), new._mesh_w));
  end if;
  new._mesh_m := v_m;
  new.updated_at := _mesh.stamp_time(new._mesh_w);
  new.origin_node := _mesh.my_name();
  return new;
end $mesh$;

-- Before UPDATE that changes the key: the old key dies, the new one is born.
create function _mesh.rekey_products() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $mesh$
#variable_conflict use_variable
declare
  v_g record;
  v_d bigint;
  v_m jsonb;
begin
  v_d := _mesh.next_stamp(old._mesh_w);
  insert into _mesh.ghost_products as g ("sku", "title", "price", "stock", "views", "updated_at", "origin_node", _mesh_w, _mesh_m, _mesh_kind, _mesh_d, _mesh_o, _mesh_ox)
    values (old."sku", old."title", old."price", old."stock", old."views", old."updated_at", old."origin_node", old._mesh_w, coalesce(old._mesh_m, pg_catalog.jsonb_build_object('g', 0, 'b', 512, 's', '{}'::pg_catalog.jsonb, 'c', pg_catalog.jsonb_build_object('stock', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(old."stock", 0), 512)), 'views', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(old."views", 0), 512))))), 'd', v_d, _mesh.me(), pg_current_xact_id()::text::bigint)
    on conflict ("sku") do update set _mesh_kind = 'd', _mesh_why = null, _mesh_w = greatest(g._mesh_w, excluded._mesh_w), _mesh_d = greatest(g._mesh_d, excluded._mesh_d), _mesh_o = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_o else g._mesh_o end, _mesh_ox = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_ox else g._mesh_ox end, "title" = excluded."title", "price" = excluded."price", "stock" = excluded."stock", "views" = excluded."views", "updated_at" = excluded."updated_at", "origin_node" = excluded."origin_node", _mesh_m = excluded._mesh_m;
  insert into _mesh.journal (origin, xid, tbl, op, w, m, img)
    values (_mesh.me(), pg_current_xact_id()::text::bigint, 'public.products', 'D', v_d, coalesce(old._mesh_m, pg_catalog.jsonb_build_object('g', 0, 'b', 512, 's', '{}'::pg_catalog.jsonb, 'c', pg_catalog.jsonb_build_object('stock', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(old."stock", 0), 512)), 'views', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(old."views", 0), 512))))) || pg_catalog.jsonb_build_object('w', old._mesh_w), array[old."sku"::pg_catalog.text, old."title"::pg_catalog.text, old."price"::pg_catalog.text, old."stock"::pg_catalog.text, old."views"::pg_catalog.text, old."origin_node"::pg_catalog.text]);
  perform pg_catalog.pg_advisory_xact_lock_shared(828858292, _mesh.bucket(pg_catalog.hash_record_extended(row(new."sku"), 0)));
  if _mesh.old_snapshot() then
    -- Fails with 40001 where a tombstone came behind our snapshot.
    insert into _mesh.ghost_products ("sku", _mesh_kind) values (new."sku", 'x') on conflict do nothing;
    delete from _mesh.ghost_products x where x."sku" operator(pg_catalog.=) new."sku" and x._mesh_kind operator(pg_catalog.=) 'x';
  end if;
  select x._mesh_kind as kind, x._mesh_w as w, x._mesh_d as d into v_g from _mesh.ghost_products x where x."sku" operator(pg_catalog.=) new."sku";
  if v_g.kind operator(pg_catalog.=) 'p' then
    raise unique_violation using message = pg_catalog.format('key %s is held by a hidden row of %s', (new."sku"::pg_catalog.text), 'public.products'), hint = 'The row lost a unique key to another row, or fails a constraint; see _mesh.conflict.';
  end if;
  new._mesh_w := _mesh.next_stamp(greatest(v_g.w, v_g.d, old._mesh_w));
  new._mesh_m := pg_catalog.jsonb_build_object('g', coalesce(v_g.d, 0), 'b', new._mesh_w, 's', '{}'::pg_catalog.jsonb, 'c', pg_catalog.jsonb_build_object('stock', pg_catalog.jsonb_build_object(_mesh.me()::pg_catalog.text, pg_catalog.jsonb_build_array(coalesce(new."stock", 0), new._mesh_w)), 'views', pg_catalog.jsonb_build_object(_mesh.me()::pg_catalog.text, pg_catalog.jsonb_build_array(coalesce(new."views", 0), new._mesh_w))));
  new.updated_at := _mesh.stamp_time(new._mesh_w);
  new.origin_node := _mesh.my_name();
  return new;
end $mesh$;
create function _mesh.rekeyed_products() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $mesh$
#variable_conflict use_variable
begin
  perform _mesh.claim_products(new."sku");
  return null;
end $mesh$;

-- After the statement: its rows go into the journal.
create function _mesh.claim_products(v_1 "public"."products"."sku"%type) returns bigint language plpgsql set search_path = pg_catalog, pg_temp as $mesh$
#variable_conflict use_variable
declare
  v_g record;
  v_x "public"."products";
  v_xact constant bigint := pg_current_xact_id()::text::bigint;
  v_role text := current_setting('session_replication_role');
begin
  -- Locked, so that a merge that is changing the tombstone is waited for.
  select g._mesh_kind as kind, g._mesh_d as d into v_g from _mesh.ghost_products g where g."sku" = v_1 for update;
  if not found then return v_xact; end if;
  select * into v_x from "public"."products" x where x."sku" = v_1;
  if not found then return v_xact; end if;
  if v_g.kind = 'p' or v_g.d >= v_x._mesh_w then
    raise serialization_failure using message = 'a row of public.products was deleted or hidden by another session or node at the same time', hint = 'Try the transaction again.';
  end if;
  delete from _mesh.ghost_products g where g."sku" = v_1;
  if v_g.d > (v_x._mesh_m ->> 'g')::bigint then
    -- Stamped before this tombstone could be seen. The life begins after it, or counters of the former one would go on elsewhere. No trigger may stamp the row
    -- again, but a foreign key that is checked later would overlook a row that was changed past it.
    if exists (select from pg_constraint k where k.conrelid = '"public"."products"'::regclass and k.contype = 'f' and k.condeferrable) then
      raise serialization_failure using message = 'a row of public.products was deleted or hidden by another session or node at the same time', hint = 'Try the transaction again.';
    end if;
    v_x._mesh_m := jsonb_set(v_x._mesh_m, '{g}', to_jsonb(v_g.d));
    perform set_config('session_replication_role', 'replica', true);
    update "public"."products" x set _mesh_m = v_x._mesh_m where x."sku" = v_1;
    perform set_config('session_replication_role', v_role, true);
    insert into _mesh.journal (origin, xid, tbl, op, w, m, img) values (_mesh.me(), v_xact, 'public.products', 'U', v_x._mesh_w, v_x._mesh_m, array[v_x."sku"::pg_catalog.text, v_x."title"::pg_catalog.text, v_x."price"::pg_catalog.text, v_x."stock"::pg_catalog.text, v_x."views"::pg_catalog.text, v_x."origin_node"::pg_catalog.text]);
  end if;
  return v_xact;
end $mesh$;
create function _mesh.inserted_products() returns trigger language plpgsql security definer as $mesh$
#variable_conflict use_variable
declare
  v_xact constant bigint := pg_catalog.pg_current_xact_id()::pg_catalog.text::bigint;
begin
  insert into _mesh.journal (origin, xid, tbl, op, w, m, img)
    select _mesh.me(), case when exists (select from _mesh.ghost_products x where x."sku" operator(pg_catalog.=) n."sku" offset 0) then _mesh.claim_products(n."sku") else v_xact end,
      'public.products', 'I', n._mesh_w, n._mesh_m, array[n."sku"::pg_catalog.text, n."title"::pg_catalog.text, n."price"::pg_catalog.text, n."stock"::pg_catalog.text, n."views"::pg_catalog.text, n."origin_node"::pg_catalog.text] from new_rows n;
  return null;
end $mesh$;
create function _mesh.updated_products() returns trigger language plpgsql security definer as $mesh$
#variable_conflict use_variable
declare
  v_xact constant bigint := pg_catalog.pg_current_xact_id()::pg_catalog.text::bigint;
begin
  insert into _mesh.journal (origin, xid, tbl, op, w, m, img)
    select _mesh.me(), v_xact, 'public.products', 'U', n._mesh_w, n._mesh_m, array[n."sku"::pg_catalog.text, n."title"::pg_catalog.text, n."price"::pg_catalog.text, n."stock"::pg_catalog.text, n."views"::pg_catalog.text, n."origin_node"::pg_catalog.text] from new_rows n;
  return null;
end $mesh$;
create function _mesh.deleted_products() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $mesh$
#variable_conflict use_variable
begin
  if exists (select from old_rows o join "public"."products" x on x."sku" = o."sku") then
    raise feature_not_supported using message = 'a row of public.products was deleted and inserted again in one statement', hint = 'The table is merged by column. Use two statements, or UPDATE.';
  end if;
  with dead as (
    insert into _mesh.ghost_products as g ("sku", "title", "price", "stock", "views", "updated_at", "origin_node", _mesh_w, _mesh_m, _mesh_kind, _mesh_d, _mesh_o, _mesh_ox)
    select o."sku", o."title", o."price", o."stock", o."views", o."updated_at", o."origin_node", o._mesh_w, coalesce(o._mesh_m, pg_catalog.jsonb_build_object('g', 0, 'b', 512, 's', '{}'::pg_catalog.jsonb, 'c', pg_catalog.jsonb_build_object('stock', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(o."stock", 0), 512)), 'views', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(o."views", 0), 512))))), 'd', _mesh.next_stamp(o._mesh_w), _mesh.me(), pg_current_xact_id()::text::bigint from old_rows o
    where not exists (select from "public"."products" x where x."sku" = o."sku")
    on conflict ("sku") do update set _mesh_kind = 'd', _mesh_why = null, _mesh_w = greatest(g._mesh_w, excluded._mesh_w), _mesh_d = greatest(g._mesh_d, excluded._mesh_d), _mesh_o = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_o else g._mesh_o end, _mesh_ox = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_ox else g._mesh_ox end, "title" = excluded."title", "price" = excluded."price", "stock" = excluded."stock", "views" = excluded."views", "updated_at" = excluded."updated_at", "origin_node" = excluded."origin_node", _mesh_m = excluded._mesh_m
    returning g.*)
  insert into _mesh.journal (origin, xid, tbl, op, w, m, img)
    select _mesh.me(), pg_current_xact_id()::text::bigint, 'public.products', 'D', n._mesh_d, n._mesh_m || pg_catalog.jsonb_build_object('w', n._mesh_w), array[n."sku"::pg_catalog.text, n."title"::pg_catalog.text, n."price"::pg_catalog.text, n."stock"::pg_catalog.text, n."views"::pg_catalog.text, n."origin_node"::pg_catalog.text] from dead n;
  return null;
end $mesh$;

-- Before TRUNCATE: every row, hidden ones too, becomes a tombstone.
create function _mesh.emptied_products() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $mesh$
#variable_conflict use_variable
begin
  if _mesh.old_snapshot() then
    raise feature_not_supported using message = 'TRUNCATE of public.products, which is in a mesh, needs isolation level read committed', hint = 'Rows that came after the snapshot of the transaction would go on this node alone.';
  end if;
  with dead as (
    insert into _mesh.ghost_products as g ("sku", "title", "price", "stock", "views", "updated_at", "origin_node", _mesh_w, _mesh_m, _mesh_kind, _mesh_d, _mesh_o, _mesh_ox)
    select o."sku", o."title", o."price", o."stock", o."views", o."updated_at", o."origin_node", o._mesh_w, coalesce(o._mesh_m, pg_catalog.jsonb_build_object('g', 0, 'b', 512, 's', '{}'::pg_catalog.jsonb, 'c', pg_catalog.jsonb_build_object('stock', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(o."stock", 0), 512)), 'views', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(o."views", 0), 512))))), 'd', _mesh.next_stamp(o._mesh_w), _mesh.me(), pg_current_xact_id()::text::bigint from "public"."products" o
    on conflict ("sku") do update set _mesh_kind = 'd', _mesh_why = null, _mesh_w = greatest(g._mesh_w, excluded._mesh_w), _mesh_d = greatest(g._mesh_d, excluded._mesh_d), _mesh_o = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_o else g._mesh_o end, _mesh_ox = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_ox else g._mesh_ox end, "title" = excluded."title", "price" = excluded."price", "stock" = excluded."stock", "views" = excluded."views", "updated_at" = excluded."updated_at", "origin_node" = excluded."origin_node", _mesh_m = excluded._mesh_m
    returning g.*), hidden as (
    update _mesh.ghost_products g set _mesh_kind = 'd', _mesh_why = null, _mesh_d = _mesh.next_stamp(greatest(g._mesh_w, g._mesh_d)), _mesh_o = _mesh.me(), _mesh_ox = pg_current_xact_id()::text::bigint where g._mesh_kind = 'p' returning g.*)
  insert into _mesh.journal (origin, xid, tbl, op, w, m, img)
    select _mesh.me(), pg_current_xact_id()::text::bigint, 'public.products', 'D', n._mesh_d, n._mesh_m || pg_catalog.jsonb_build_object('w', n._mesh_w), array[n."sku"::pg_catalog.text, n."title"::pg_catalog.text, n."price"::pg_catalog.text, n."stock"::pg_catalog.text, n."views"::pg_catalog.text, n."origin_node"::pg_catalog.text] from (select * from dead union all select * from hidden) n;
  return null;
end $mesh$;

create trigger zzz_mesh_born before insert on "public"."products" for each row execute function _mesh.born_products();
create trigger zzz_mesh_stamp before update on "public"."products" for each row when (not (old."sku" is distinct from new."sku")) execute function _mesh.stamp_products();
create trigger zzz_mesh_rekey before update on "public"."products" for each row when (old."sku" is distinct from new."sku") execute function _mesh.rekey_products();
create trigger zzz_mesh_rekeyed after update on "public"."products" for each row when (old."sku" is distinct from new."sku") execute function _mesh.rekeyed_products();
create trigger zzz_mesh_inserted after insert on "public"."products" referencing new table as new_rows for each statement execute function _mesh.inserted_products();
create trigger zzz_mesh_updated after update on "public"."products" referencing new table as new_rows for each statement execute function _mesh.updated_products();
create trigger zzz_mesh_deleted after delete on "public"."products" referencing old table as old_rows for each statement execute function _mesh.deleted_products();
create trigger zzz_mesh_emptied before truncate on "public"."products" for each statement execute function _mesh.emptied_products();

-- Shows a live row, or hides it: visible is what passes its constraints and holds its unique keys against all live rows of lower (stamp, key).
create function _mesh.place_products(v_r "public"."products", v_origin bigint) returns void language plpgsql set search_path = pg_catalog, pg_temp as $mesh$
#variable_conflict use_variable
declare
  v_why text;
  v_winner text;

begin

  if v_why is null then
    begin
      v_r."stock" := (select coalesce(sum((e.value ->> 0)::numeric), 0) from jsonb_each(v_r._mesh_m -> 'c' -> 'stock') e);
      v_r."views" := (select coalesce(sum((e.value ->> 0)::numeric), 0) from jsonb_each(v_r._mesh_m -> 'c' -> 'views') e);
      insert into "public"."products" ("sku", "title", "price", "stock", "views", "updated_at", "origin_node", _mesh_w, _mesh_m) overriding system value values (v_r."sku", v_r."title", v_r."price", v_r."stock", v_r."views", v_r."updated_at", v_r."origin_node", v_r._mesh_w, v_r._mesh_m)
        on conflict ("sku") do update set "sku" = excluded."sku", "title" = excluded."title", "price" = excluded."price", "stock" = excluded."stock", "views" = excluded."views", "updated_at" = excluded."updated_at", "origin_node" = excluded."origin_node", "_mesh_w" = excluded."_mesh_w", "_mesh_m" = excluded."_mesh_m";
      delete from _mesh.ghost_products x where x."sku" = v_r."sku";
      return;
    exception when check_violation or not_null_violation or numeric_value_out_of_range then
      v_why := 'invalid';
      v_winner := sqlerrm;
    end;
  end if;
  -- The same sums whatever hides the row: which reason came first differs from node to node.
  begin
    v_r."stock" := (select coalesce(sum((e.value ->> 0)::numeric), 0) from jsonb_each(v_r._mesh_m -> 'c' -> 'stock') e);
    v_r."views" := (select coalesce(sum((e.value ->> 0)::numeric), 0) from jsonb_each(v_r._mesh_m -> 'c' -> 'views') e);
  exception when numeric_value_out_of_range then
    v_r."stock" := null;
    v_r."views" := null;
  end;
  delete from "public"."products" x where x."sku" = v_r."sku";
  insert into _mesh.ghost_products ("sku", "title", "price", "stock", "views", "updated_at", "origin_node", _mesh_w, _mesh_m, _mesh_kind, _mesh_d, _mesh_why) values (v_r."sku", v_r."title", v_r."price", v_r."stock", v_r."views", v_r."updated_at", v_r."origin_node", v_r._mesh_w, v_r._mesh_m, 'p', 0, v_why)
    on conflict ("sku") do update set "sku" = excluded."sku", "title" = excluded."title", "price" = excluded."price", "stock" = excluded."stock", "views" = excluded."views", "updated_at" = excluded."updated_at", "origin_node" = excluded."origin_node", "_mesh_w" = excluded."_mesh_w", "_mesh_m" = excluded."_mesh_m", _mesh_kind = 'p', _mesh_d = 0, _mesh_why = excluded._mesh_why, _mesh_o = null, _mesh_ox = null;
  perform _mesh.note('public.products', (v_r."sku"::pg_catalog.text), v_why || '_parked', v_origin, v_r._mesh_w, jsonb_build_object('by', v_winner));
end $mesh$;

-- Merges a line of another node: the join of two states, the same whichever comes first.
create function _mesh.merge_products() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $mesh$
#variable_conflict use_variable
declare
  v_inc "public"."products";
  v_cur "public"."products";
  v_r "public"."products";
  v_g _mesh.ghost_products;
  v_state text;
  v_d bigint;
  v_locked boolean := false;
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
  if cardinality(new.img) > 6 then
    raise exception using errcode = '55000', message = 'a change of public.products has more columns than this node knows', hint = 'Apply the newer schema on this node. The changes of that node wait until then; nothing is lost.';
  end if;
  v_inc."sku" := new.img[1];
  v_inc."title" := new.img[2];
  v_inc."price" := new.img[3];
  v_inc."stock" := new.img[4];
  v_inc."views" := new.img[5];
  v_inc."origin_node" := new.img[6];
  v_inc.updated_at := _mesh.stamp_time(new.w);
  v_inc._mesh_w := new.w;
  v_inc._mesh_m := new.m;
  if (new.w >> 9) > _mesh.wall() then perform _mesh.see(new.w, new.origin); end if;
  loop
    select * into v_cur from "public"."products" x where x."sku" = v_inc."sku" for update;
    v_state := case when found then 'live' else 'none' end;
    select * into v_g from _mesh.ghost_products x where x."sku" = v_inc."sku" for update;
    v_d := 0;
    if found then
      v_d := coalesce(v_g._mesh_d, 0);
      if v_state = 'none' then
        v_state := v_g._mesh_kind::text;
        v_cur."sku" := v_g."sku";
        v_cur."title" := v_g."title";
        v_cur."price" := v_g."price";
        v_cur."stock" := v_g."stock";
        v_cur."views" := v_g."views";
        v_cur."updated_at" := v_g."updated_at";
        v_cur."origin_node" := v_g."origin_node";
        v_cur._mesh_w := coalesce(v_g._mesh_w, 0);
        v_cur._mesh_m := v_g._mesh_m;
      end if;
    end if;
    if v_state = 'none' and not v_locked then
      -- Nobody may be about to insert this key.
      perform pg_advisory_xact_lock(828858292, _mesh.bucket(pg_catalog.hash_record_extended(row(v_inc."sku"), 0)));
      v_locked := true;
      continue;
    end if;
    v_iw := case when new.op = 'D' then (new.m ->> 'w')::bigint else new.w end;
    v_im := coalesce(new.m - 'w', pg_catalog.jsonb_build_object('g', 0, 'b', 512, 's', '{}'::pg_catalog.jsonb, 'c', pg_catalog.jsonb_build_object('stock', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(v_inc."stock", 0), 512)), 'views', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(v_inc."views", 0), 512)))));
    v_r := v_inc;
    v_r._mesh_w := v_iw;
    v_r._mesh_m := v_im;
    if v_state in ('live', 'p') or (v_state = 'd' and v_cur._mesh_m is not null) then
      v_m := coalesce(v_cur._mesh_m, pg_catalog.jsonb_build_object('g', 0, 'b', 512, 's', '{}'::pg_catalog.jsonb, 'c', pg_catalog.jsonb_build_object('stock', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(v_cur."stock", 0), 512)), 'views', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(v_cur."views", 0), 512)))));
      if new.op <> 'D' and v_cur._mesh_w > v_iw and v_state <> 'd' and (v_iw & 511) <> (v_cur._mesh_w & 511) then perform _mesh.note('public.products', (v_inc."sku"::pg_catalog.text), 'update_merged', new.origin, new.w, jsonb_build_object('kept', v_cur._mesh_w, 'merged', to_jsonb(new.img))); end if;
      v_r := v_cur;
      v_b := greatest((v_m ->> 'b')::bigint, (v_im ->> 'b')::bigint);
      v_s := '{}';
      v_s1 := _mesh.column_stamp(v_m, 'title');
      v_s2 := _mesh.column_stamp(v_im, 'title');
      if v_s2 > v_s1 then v_r."title" := v_inc."title"; v_s1 := v_s2; end if;
      if v_s1 <> v_b then v_s := v_s || jsonb_build_object('title', v_s1); end if;
      v_s1 := _mesh.column_stamp(v_m, 'price');
      v_s2 := _mesh.column_stamp(v_im, 'price');
      if v_s2 > v_s1 then v_r."price" := v_inc."price"; v_s1 := v_s2; end if;
      if v_s1 <> v_b then v_s := v_s || jsonb_build_object('price', v_s1); end if;
      if v_iw > v_cur._mesh_w then
        v_r."sku" := v_inc."sku";
        v_r."updated_at" := v_inc."updated_at";
        v_r."origin_node" := v_inc."origin_node";
        v_r.updated_at := _mesh.stamp_time(v_iw);
        v_r._mesh_w := v_iw;
      end if;
      v_c := v_m -> 'c';
      if (v_im ->> 'g')::bigint > (v_m ->> 'g')::bigint then v_c := v_im -> 'c';
      elsif (v_im ->> 'g')::bigint = (v_m ->> 'g')::bigint then
        for v_n in select jsonb_object_keys(v_im -> 'c' -> 'stock') loop
          if coalesce((v_c -> 'stock' -> v_n ->> 1)::bigint, 0) < (v_im -> 'c' -> 'stock' -> v_n ->> 1)::bigint then v_c := jsonb_set(v_c, array['stock', v_n], v_im -> 'c' -> 'stock' -> v_n); end if;
        end loop;
        for v_n in select jsonb_object_keys(v_im -> 'c' -> 'views') loop
          if coalesce((v_c -> 'views' -> v_n ->> 1)::bigint, 0) < (v_im -> 'c' -> 'views' -> v_n ->> 1)::bigint then v_c := jsonb_set(v_c, array['views', v_n], v_im -> 'c' -> 'views' -> v_n); end if;
        end loop;
      end if;
      v_r._mesh_m := jsonb_build_object('g', greatest((v_m ->> 'g')::bigint, (v_im ->> 'g')::bigint), 'b', v_b, 's', v_s, 'c', v_c);
    elsif v_state = 'd' then
      v_r._mesh_w := greatest(v_iw, v_cur._mesh_w);
    end if;
    v_r.updated_at := _mesh.stamp_time(v_r._mesh_w);
    if new.op = 'D' then v_d := greatest(v_d, new.w); end if;
    if v_d > v_r._mesh_w then
      if v_state = 'live' then delete from "public"."products" x where x."sku" = v_r."sku"; end if;
      insert into _mesh.ghost_products as g ("sku", "title", "price", "stock", "views", "updated_at", "origin_node", _mesh_w, _mesh_m, _mesh_kind, _mesh_d, _mesh_o, _mesh_ox) values (v_r."sku", v_r."title", v_r."price", v_r."stock", v_r."views", v_r."updated_at", v_r."origin_node", v_r._mesh_w, coalesce(v_r._mesh_m, pg_catalog.jsonb_build_object('g', 0, 'b', 512, 's', '{}'::pg_catalog.jsonb, 'c', pg_catalog.jsonb_build_object('stock', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(v_r."stock", 0), 512)), 'views', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(v_r."views", 0), 512))))), 'd', v_d,
          case when new.op = 'D' and new.w = v_d then new.origin end, case when new.op = 'D' and new.w = v_d then new.xid end)
        on conflict ("sku") do update set _mesh_kind = 'd', _mesh_why = null, _mesh_w = greatest(g._mesh_w, excluded._mesh_w), _mesh_d = greatest(g._mesh_d, excluded._mesh_d), _mesh_o = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_o else g._mesh_o end, _mesh_ox = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_ox else g._mesh_ox end, "title" = excluded."title", "price" = excluded."price", "stock" = excluded."stock", "views" = excluded."views", "updated_at" = excluded."updated_at", "origin_node" = excluded."origin_node", _mesh_m = excluded._mesh_m;
    else
      perform _mesh.place_products(v_r, new.origin);
      if v_state = 'd' then perform _mesh.note('public.products', (v_r."sku"::pg_catalog.text), 'resurrected', new.origin, new.w, jsonb_build_object('deleted', v_d)); end if;
    end if;
    return null;
  end loop;
end $mesh$;

create trigger "apply_products" before insert on _mesh.journal for each row when (new.tbl = 'public.products') execute function _mesh.merge_products();
alter table _mesh.journal enable replica trigger "apply_products";

-- Every row (l), hidden row (p) and tombstone (d) of the table.
create function _mesh.state_products() returns table (key text, kind "char", w bigint, d bigint, img text[], m jsonb, why text) language sql stable set search_path = pg_catalog, pg_temp as $mesh$
  select (x."sku"::pg_catalog.text), 'l'::"char", x._mesh_w, 0::bigint, array[x."sku"::pg_catalog.text, x."title"::pg_catalog.text, x."price"::pg_catalog.text, x."stock"::pg_catalog.text, x."views"::pg_catalog.text, x."origin_node"::pg_catalog.text], coalesce(x._mesh_m, pg_catalog.jsonb_build_object('g', 0, 'b', 512, 's', '{}'::pg_catalog.jsonb, 'c', pg_catalog.jsonb_build_object('stock', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(x."stock", 0), 512)), 'views', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(x."views", 0), 512))))), null::text from "public"."products" x
  union all
  select (g."sku"::pg_catalog.text), g._mesh_kind, coalesce(g._mesh_w, 0), coalesce(g._mesh_d, 0), array[g."sku"::pg_catalog.text, g."title"::pg_catalog.text, g."price"::pg_catalog.text, g."stock"::pg_catalog.text, g."views"::pg_catalog.text, g."origin_node"::pg_catalog.text], g._mesh_m, g._mesh_why from _mesh.ghost_products g where g._mesh_kind in ('d', 'p')
$mesh$;

-- Tells the others again what this node holds: all of it, or these keys. Merging it twice changes nothing.
create function _mesh.reemit_products(v_keys text[] default null) returns bigint language plpgsql security definer set search_path = pg_catalog, pg_temp as $mesh$
#variable_conflict use_variable
declare v_n bigint;
begin
  insert into _mesh.journal (origin, xid, tbl, op, w, m, img)
    select _mesh.me(), pg_current_xact_id()::text::bigint, 'public.products', case when s.kind = 'd' then 'D' else 'U' end, case when s.kind = 'd' then s.d else s.w end,
      case when s.kind = 'd' then coalesce(s.m, jsonb_build_object('g', 0, 'b', 0, 's', '{}'::jsonb, 'c', '{"stock":{},"views":{}}'::jsonb)) || jsonb_build_object('w', s.w) else s.m end, s.img
    from _mesh.state_products() s where v_keys is null or s.key = any (v_keys);
  get diagnostics v_n = row_count;
  update _mesh.ghost_products g set _mesh_o = _mesh.me(), _mesh_ox = pg_current_xact_id()::text::bigint
    where g._mesh_kind = 'd' and (v_keys is null or (g."sku"::pg_catalog.text) = any (v_keys)) and ((_mesh.me(), pg_current_xact_id()::text::bigint) > (g._mesh_o, g._mesh_ox) or _mesh.gone(g._mesh_o));
  return v_n;
end $mesh$;

-- Stamps these rows anew with all their values, for repair: where nodes hold other values under one stamp, the merge cannot decide.
create function _mesh.touch_products(v_keys text[]) returns bigint language plpgsql security definer set search_path = pg_catalog, pg_temp as $mesh$
#variable_conflict use_variable
declare
  v_x "public"."products";
  v_w bigint;
  v_n bigint := 0;
  v_role text := current_setting('session_replication_role');
begin
  perform set_config('session_replication_role', 'replica', true);
  for v_x in select * from "public"."products" x where (x."sku"::pg_catalog.text) = any (v_keys) for update loop
    v_w := _mesh.next_stamp(v_x._mesh_w);
    update "public"."products" x set _mesh_w = v_w, _mesh_m = coalesce(x._mesh_m, pg_catalog.jsonb_build_object('g', 0, 'b', 512, 's', '{}'::pg_catalog.jsonb, 'c', pg_catalog.jsonb_build_object('stock', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(x."stock", 0), 512)), 'views', pg_catalog.jsonb_build_object('0', pg_catalog.jsonb_build_array(coalesce(x."views", 0), 512))))) || jsonb_build_object('g', v_w, 'b', v_w, 's', '{}'::jsonb), updated_at = _mesh.stamp_time(v_w) where x."sku" = v_x."sku";
    v_n := v_n + 1;
  end loop;
  -- Back first: in replica mode the journal's triggers would take the lines for those of another node.
  perform set_config('session_replication_role', v_role, true);
  insert into _mesh.journal (origin, xid, tbl, op, w, m, img)
    select _mesh.me(), pg_current_xact_id()::text::bigint, 'public.products', 'U', x._mesh_w, x._mesh_m, array[x."sku"::pg_catalog.text, x."title"::pg_catalog.text, x."price"::pg_catalog.text, x."stock"::pg_catalog.text, x."views"::pg_catalog.text, x."origin_node"::pg_catalog.text] from "public"."products" x where (x."sku"::pg_catalog.text) = any (v_keys);
  return v_n;
end $mesh$;

-- ----------------------------------------------------------------------------------------------------
-- public.orders in the mesh: merged as whole rows
-- ----------------------------------------------------------------------------------------------------
alter table "public"."orders" add column _mesh_w bigint not null default 512;
-- Tombstones (d) and hidden rows (p); local to this node.
create table _mesh.ghost_orders as select * from "public"."orders" with no data;
alter table _mesh.ghost_orders add column _mesh_kind "char", add column _mesh_d bigint, add column _mesh_o bigint, add column _mesh_ox bigint, add column _mesh_why text, add primary key ("id");
insert into _mesh.tbl values ('public.orders', '"public"."orders"'::regclass, 'orders', 'row',
  array['id', 'customer_id', 'placed_at', 'total', 'origin_node'], array['id'], '{}', 'cc82e25d');

-- Before INSERT: stamp the row above whatever lies under its key.
create function _mesh.born_orders() returns trigger language plpgsql security definer as $mesh$
#variable_conflict use_variable
declare
  v_g record;
begin
  perform pg_catalog.pg_advisory_xact_lock_shared(998229531, _mesh.bucket(pg_catalog.hash_record_extended(row(new."id"), 0)));
  if _mesh.old_snapshot() then
    -- Fails with 40001 where a tombstone came behind our snapshot.
    insert into _mesh.ghost_orders ("id", _mesh_kind) values (new."id", 'x') on conflict do nothing;
    delete from _mesh.ghost_orders x where x."id" operator(pg_catalog.=) new."id" and x._mesh_kind operator(pg_catalog.=) 'x';
  end if;
  select x._mesh_kind as kind, x._mesh_w as w, x._mesh_d as d into v_g from _mesh.ghost_orders x where x."id" operator(pg_catalog.=) new."id";
  if v_g.kind operator(pg_catalog.=) 'p' then
    raise unique_violation using message = pg_catalog.format('key %s is held by a hidden row of %s', (new."id"::pg_catalog.text), 'public.orders'), hint = 'The row lost a unique key to another row, or fails a constraint; see _mesh.conflict.';
  end if;
  new._mesh_w := _mesh.next_stamp(greatest(v_g.w, v_g.d));
  new.updated_at := _mesh.stamp_time(new._mesh_w);
  new.origin_node := _mesh.my_name();
  return new;
end $mesh$;

-- Before UPDATE: the stamp. It runs with the writer's own rights and touches no table.
create function _mesh.stamp_orders() returns trigger language plpgsql as $mesh$
#variable_conflict use_variable
begin
  new._mesh_w := _mesh.next_stamp(old._mesh_w);
  new.updated_at := _mesh.stamp_time(new._mesh_w);
  new.origin_node := _mesh.my_name();
  return new;
end $mesh$;

-- Before UPDATE that changes the key: the old key dies, the new one is born.
create function _mesh.rekey_orders() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp set datestyle = 'ISO, YMD' as $mesh$
#variable_conflict use_variable
declare
  v_g record;
  v_d bigint;
begin
  v_d := _mesh.next_stamp(old._mesh_w);
  insert into _mesh.ghost_orders as g ("id", _mesh_w, _mesh_kind, _mesh_d, _mesh_o, _mesh_ox)
    values (old."id", old._mesh_w, 'd', v_d, _mesh.me(), pg_current_xact_id()::text::bigint)
    on conflict ("id") do update set _mesh_kind = 'd', _mesh_why = null, _mesh_w = greatest(g._mesh_w, excluded._mesh_w), _mesh_d = greatest(g._mesh_d, excluded._mesh_d), _mesh_o = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_o else g._mesh_o end, _mesh_ox = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_ox else g._mesh_ox end;
  insert into _mesh.journal (origin, xid, tbl, op, w, m, img)
    values (_mesh.me(), pg_current_xact_id()::text::bigint, 'public.orders', 'D', v_d, null, array[old."id"::pg_catalog.text, null, null, null, null]);
  perform pg_catalog.pg_advisory_xact_lock_shared(998229531, _mesh.bucket(pg_catalog.hash_record_extended(row(new."id"), 0)));
  if _mesh.old_snapshot() then
    -- Fails with 40001 where a tombstone came behind our snapshot.
    insert into _mesh.ghost_orders ("id", _mesh_kind) values (new."id", 'x') on conflict do nothing;
    delete from _mesh.ghost_orders x where x."id" operator(pg_catalog.=) new."id" and x._mesh_kind operator(pg_catalog.=) 'x';
  end if;
  select x._mesh_kind as kind, x._mesh_w as w, x._mesh_d as d into v_g from _mesh.ghost_orders x where x."id" operator(pg_catalog.=) new."id";
  if v_g.kind operator(pg_catalog.=) 'p' then
    raise unique_violation using message = pg_catalog.format('key %s is held by a hidden row of %s', (new."id"::pg_catalog.text), 'public.orders'), hint = 'The row lost a unique key to another row, or fails a constraint; see _mesh.conflict.';
  end if;
  new._mesh_w := _mesh.next_stamp(greatest(v_g.w, v_g.d, old._mesh_w));
  new.updated_at := _mesh.stamp_time(new._mesh_w);
  new.origin_node := _mesh.my_name();
  return new;
end $mesh$;
create function _mesh.rekeyed_orders() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $mesh$
#variable_conflict use_variable
begin
  perform _mesh.claim_orders(new."id");
  return null;
end $mesh$;

-- After the statement: its rows go into the journal.
create function _mesh.claim_orders(v_1 "public"."orders"."id"%type) returns bigint language plpgsql set search_path = pg_catalog, pg_temp as $mesh$
#variable_conflict use_variable
declare
  v_g record;
  v_x "public"."orders";
  v_xact constant bigint := pg_current_xact_id()::text::bigint;
begin
  -- Locked, so that a merge that is changing the tombstone is waited for.
  select g._mesh_kind as kind, g._mesh_d as d into v_g from _mesh.ghost_orders g where g."id" = v_1 for update;
  if not found then return v_xact; end if;
  select * into v_x from "public"."orders" x where x."id" = v_1;
  if not found then return v_xact; end if;
  if v_g.kind = 'p' or v_g.d >= v_x._mesh_w then
    raise serialization_failure using message = 'a row of public.orders was deleted or hidden by another session or node at the same time', hint = 'Try the transaction again.';
  end if;
  delete from _mesh.ghost_orders g where g."id" = v_1;
  return v_xact;
end $mesh$;
create function _mesh.inserted_orders() returns trigger language plpgsql security definer set datestyle = 'ISO, YMD' as $mesh$
#variable_conflict use_variable
declare
  v_xact constant bigint := pg_catalog.pg_current_xact_id()::pg_catalog.text::bigint;
begin
  insert into _mesh.journal (origin, xid, tbl, op, w, m, img)
    select _mesh.me(), case when exists (select from _mesh.ghost_orders x where x."id" operator(pg_catalog.=) n."id" offset 0) then _mesh.claim_orders(n."id") else v_xact end,
      'public.orders', 'I', n._mesh_w, null, array[n."id"::pg_catalog.text, n."customer_id"::pg_catalog.text, n."placed_at"::pg_catalog.text, n."total"::pg_catalog.text, n."origin_node"::pg_catalog.text] from new_rows n;
  return null;
end $mesh$;
create function _mesh.updated_orders() returns trigger language plpgsql security definer set datestyle = 'ISO, YMD' as $mesh$
#variable_conflict use_variable
declare
  v_xact constant bigint := pg_catalog.pg_current_xact_id()::pg_catalog.text::bigint;
begin
  insert into _mesh.journal (origin, xid, tbl, op, w, m, img)
    select _mesh.me(), v_xact, 'public.orders', 'U', n._mesh_w, null, array[n."id"::pg_catalog.text, n."customer_id"::pg_catalog.text, n."placed_at"::pg_catalog.text, n."total"::pg_catalog.text, n."origin_node"::pg_catalog.text] from new_rows n;
  return null;
end $mesh$;
create function _mesh.deleted_orders() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp set datestyle = 'ISO, YMD' as $mesh$
#variable_conflict use_variable
begin
  if exists (select from old_rows o join "public"."orders" x on x."id" = o."id" where x._mesh_w <= o._mesh_w) then
    raise serialization_failure using message = 'a row of public.orders was deleted and inserted again in one statement while the clock stood still';
  end if;
  with dead as (
    insert into _mesh.ghost_orders as g ("id", _mesh_w, _mesh_kind, _mesh_d, _mesh_o, _mesh_ox)
    select o."id", o._mesh_w, 'd', _mesh.next_stamp(o._mesh_w), _mesh.me(), pg_current_xact_id()::text::bigint from old_rows o
    where not exists (select from "public"."orders" x where x."id" = o."id")
    on conflict ("id") do update set _mesh_kind = 'd', _mesh_why = null, _mesh_w = greatest(g._mesh_w, excluded._mesh_w), _mesh_d = greatest(g._mesh_d, excluded._mesh_d), _mesh_o = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_o else g._mesh_o end, _mesh_ox = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_ox else g._mesh_ox end
    returning g.*)
  insert into _mesh.journal (origin, xid, tbl, op, w, m, img)
    select _mesh.me(), pg_current_xact_id()::text::bigint, 'public.orders', 'D', n._mesh_d, null, array[n."id"::pg_catalog.text, null, null, null, null] from dead n;
  return null;
end $mesh$;

-- Before TRUNCATE: every row, hidden ones too, becomes a tombstone.
create function _mesh.emptied_orders() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp set datestyle = 'ISO, YMD' as $mesh$
#variable_conflict use_variable
begin
  if _mesh.old_snapshot() then
    raise feature_not_supported using message = 'TRUNCATE of public.orders, which is in a mesh, needs isolation level read committed', hint = 'Rows that came after the snapshot of the transaction would go on this node alone.';
  end if;
  with dead as (
    insert into _mesh.ghost_orders as g ("id", _mesh_w, _mesh_kind, _mesh_d, _mesh_o, _mesh_ox)
    select o."id", o._mesh_w, 'd', _mesh.next_stamp(o._mesh_w), _mesh.me(), pg_current_xact_id()::text::bigint from "public"."orders" o
    on conflict ("id") do update set _mesh_kind = 'd', _mesh_why = null, _mesh_w = greatest(g._mesh_w, excluded._mesh_w), _mesh_d = greatest(g._mesh_d, excluded._mesh_d), _mesh_o = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_o else g._mesh_o end, _mesh_ox = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_ox else g._mesh_ox end
    returning g.*)
  insert into _mesh.journal (origin, xid, tbl, op, w, m, img)
    select _mesh.me(), pg_current_xact_id()::text::bigint, 'public.orders', 'D', n._mesh_d, null, array[n."id"::pg_catalog.text, null, null, null, null] from dead n;
  return null;
end $mesh$;

create trigger zzz_mesh_born before insert on "public"."orders" for each row execute function _mesh.born_orders();
create trigger zzz_mesh_stamp before update on "public"."orders" for each row when (not (old."id" is distinct from new."id")) execute function _mesh.stamp_orders();
create trigger zzz_mesh_rekey before update on "public"."orders" for each row when (old."id" is distinct from new."id") execute function _mesh.rekey_orders();
create trigger zzz_mesh_rekeyed after update on "public"."orders" for each row when (old."id" is distinct from new."id") execute function _mesh.rekeyed_orders();
create trigger zzz_mesh_inserted after insert on "public"."orders" referencing new table as new_rows for each statement execute function _mesh.inserted_orders();
create trigger zzz_mesh_updated after update on "public"."orders" referencing new table as new_rows for each statement execute function _mesh.updated_orders();
create trigger zzz_mesh_deleted after delete on "public"."orders" referencing old table as old_rows for each statement execute function _mesh.deleted_orders();
create trigger zzz_mesh_emptied before truncate on "public"."orders" for each statement execute function _mesh.emptied_orders();

-- Merges a line of another node. Rows are merged as a whole: the newest stamp wins.
create function _mesh.merge_orders() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp set datestyle = 'ISO, YMD' as $mesh$
#variable_conflict use_variable
declare
  v_r "public"."orders";
  v_kept bigint;
  v_g record;
  v_locked boolean := false;
begin
  if cardinality(new.img) > 5 then
    raise exception using errcode = '55000', message = 'a change of public.orders has more columns than this node knows', hint = 'Apply the newer schema on this node. The changes of that node wait until then; nothing is lost.';
  end if;
  v_r."id" := new.img[1];
  v_r."customer_id" := new.img[2];
  v_r."placed_at" := new.img[3];
  v_r."total" := new.img[4];
  v_r."origin_node" := new.img[5];
  v_r.updated_at := _mesh.stamp_time(new.w);
  v_r._mesh_w := new.w;
  if (new.w >> 9) > _mesh.wall() then perform _mesh.see(new.w, new.origin); end if;
  if new.op = 'D' then
    loop
      delete from "public"."orders" x where x."id" = v_r."id" and x._mesh_w < new.w returning x._mesh_w into v_kept;
      if not found then
        select x._mesh_w into v_kept from "public"."orders" x where x."id" = v_r."id";
        if found then
          -- A later write keeps the row alive.
          if v_kept < new.w then continue; end if;
          if (new.w & 511) <> (v_kept & 511) then perform _mesh.note('public.orders', (v_r."id"::pg_catalog.text), 'delete_older', new.origin, new.w, jsonb_build_object('kept', v_kept, 'lost', to_jsonb(new.img))); end if;
          return null;
        end if;
        -- No row: nobody may be about to insert one while the tombstone is written.
        if not v_locked then
          perform pg_advisory_xact_lock(998229531, _mesh.bucket(pg_catalog.hash_record_extended(row(v_r."id"), 0)));
          v_locked := true;
          continue;
        end if;
        v_kept := 0;
      end if;
      insert into _mesh.ghost_orders as g ("id", _mesh_w, _mesh_kind, _mesh_d, _mesh_o, _mesh_ox) values (v_r."id", v_kept, 'd', new.w, new.origin, new.xid)
        on conflict ("id") do update set _mesh_kind = 'd', _mesh_why = null, _mesh_w = greatest(g._mesh_w, excluded._mesh_w), _mesh_d = greatest(g._mesh_d, excluded._mesh_d), _mesh_o = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_o else g._mesh_o end, _mesh_ox = case when excluded._mesh_d > coalesce(g._mesh_d, 0) or (excluded._mesh_d = g._mesh_d and ((excluded._mesh_o, excluded._mesh_ox) > (g._mesh_o, g._mesh_ox) or (excluded._mesh_o is not null and _mesh.gone(g._mesh_o)))) then excluded._mesh_ox else g._mesh_ox end;
      return null;
    end loop;
  end if;
  loop
    if new.op <> 'I' then
      update "public"."orders" x set "id" = v_r."id", "customer_id" = v_r."customer_id", "placed_at" = v_r."placed_at", "total" = v_r."total", "updated_at" = v_r."updated_at", "origin_node" = v_r."origin_node", _mesh_w = v_r._mesh_w where x."id" = v_r."id" and x._mesh_w < v_r._mesh_w;
      if found then return null; end if;
    end if;
    new.op := 'U';
    select x._mesh_w into v_kept from "public"."orders" x where x."id" = v_r."id";
    if found then
      if v_kept < v_r._mesh_w then continue; end if;
      if (new.w & 511) <> (v_kept & 511) then perform _mesh.note('public.orders', (v_r."id"::pg_catalog.text), 'update_stale', new.origin, new.w, jsonb_build_object('kept', v_kept, 'lost', to_jsonb(new.img))); end if;
      return null;
    end if;
    perform pg_advisory_xact_lock_shared(998229531, _mesh.bucket(pg_catalog.hash_record_extended(row(v_r."id"), 0)));
    insert into "public"."orders" ("id", "customer_id", "placed_at", "total", "updated_at", "origin_node", _mesh_w) overriding system value values (v_r."id", v_r."customer_id", v_r."placed_at", v_r."total", v_r."updated_at", v_r."origin_node", v_r._mesh_w) on conflict ("id") do nothing;
    if found then
      -- Looked up only now: whoever buried this key before our row was there has committed, whoever comes later waits for us.
      select x._mesh_d as d into v_g from _mesh.ghost_orders x where x."id" = v_r."id";
      if found and v_g.d > v_r._mesh_w then
        delete from "public"."orders" x where x."id" = v_r."id";
        if (new.w & 511) <> (v_g.d & 511) then perform _mesh.note('public.orders', (v_r."id"::pg_catalog.text), 'update_deleted', new.origin, new.w, jsonb_build_object('kept', v_g.d, 'lost', to_jsonb(new.img))); end if;
      elsif found then
        delete from _mesh.ghost_orders x where x."id" = v_r."id";
        perform _mesh.note('public.orders', (v_r."id"::pg_catalog.text), 'resurrected', new.origin, new.w, jsonb_build_object('deleted', v_g.d));
      end if;
      return null;
    end if;
  end loop;
end $mesh$;

create trigger "apply_orders" before insert on _mesh.journal for each row when (new.tbl = 'public.orders') execute function _mesh.merge_orders();
alter table _mesh.journal enable replica trigger "apply_orders";

-- Every row (l), hidden row (p) and tombstone (d) of the table.
create function _mesh.state_orders() returns table (key text, kind "char", w bigint, d bigint, img text[], m jsonb, why text) language sql stable set search_path = pg_catalog, pg_temp set datestyle = 'ISO, YMD' as $mesh$
  select (x."id"::pg_catalog.text), 'l'::"char", x._mesh_w, 0::bigint, array[x."id"::pg_catalog.text, x."customer_id"::pg_catalog.text, x."placed_at"::pg_catalog.text, x."total"::pg_catalog.text, x."origin_node"::pg_catalog.text], null::jsonb, null::text from "public"."orders" x
  union all
  select (g."id"::pg_catalog.text), g._mesh_kind, coalesce(g._mesh_w, 0), coalesce(g._mesh_d, 0), case when g._mesh_kind = 'd' then array[g."id"::pg_catalog.text, null, null, null, null] else array[g."id"::pg_catalog.text, g."customer_id"::pg_catalog.text, g."placed_at"::pg_catalog.text, g."total"::pg_catalog.text, g."origin_node"::pg_catalog.text] end, null::jsonb, g._mesh_why from _mesh.ghost_orders g where g._mesh_kind in ('d', 'p')
$mesh$;

-- Tells the others again what this node holds: all of it, or these keys. Merging it twice changes nothing.
create function _mesh.reemit_orders(v_keys text[] default null) returns bigint language plpgsql security definer set search_path = pg_catalog, pg_temp set datestyle = 'ISO, YMD' as $mesh$
#variable_conflict use_variable
declare v_n bigint;
begin
  insert into _mesh.journal (origin, xid, tbl, op, w, m, img)
    select _mesh.me(), pg_current_xact_id()::text::bigint, 'public.orders', case when s.kind = 'd' then 'D' else 'U' end, case when s.kind = 'd' then s.d else s.w end,
      null, s.img
    from _mesh.state_orders() s where v_keys is null or s.key = any (v_keys);
  get diagnostics v_n = row_count;
  update _mesh.ghost_orders g set _mesh_o = _mesh.me(), _mesh_ox = pg_current_xact_id()::text::bigint
    where g._mesh_kind = 'd' and (v_keys is null or (g."id"::pg_catalog.text) = any (v_keys)) and ((_mesh.me(), pg_current_xact_id()::text::bigint) > (g._mesh_o, g._mesh_ox) or _mesh.gone(g._mesh_o));
  return v_n;
end $mesh$;

-- Stamps these rows anew with all their values, for repair: where nodes hold other values under one stamp, the merge cannot decide.
create function _mesh.touch_orders(v_keys text[]) returns bigint language plpgsql security definer set search_path = pg_catalog, pg_temp set datestyle = 'ISO, YMD' as $mesh$
#variable_conflict use_variable
declare
  v_x "public"."orders";
  v_w bigint;
  v_n bigint := 0;
  v_role text := current_setting('session_replication_role');
begin
  perform set_config('session_replication_role', 'replica', true);
  for v_x in select * from "public"."orders" x where (x."id"::pg_catalog.text) = any (v_keys) for update loop
    v_w := _mesh.next_stamp(v_x._mesh_w);
    update "public"."orders" x set _mesh_w = v_w, updated_at = _mesh.stamp_time(v_w) where x."id" = v_x."id";
    v_n := v_n + 1;
  end loop;
  -- Back first: in replica mode the journal's triggers would take the lines for those of another node.
  perform set_config('session_replication_role', v_role, true);
  insert into _mesh.journal (origin, xid, tbl, op, w, m, img)
    select _mesh.me(), pg_current_xact_id()::text::bigint, 'public.orders', 'U', x._mesh_w, null, array[x."id"::pg_catalog.text, x."customer_id"::pg_catalog.text, x."placed_at"::pg_catalog.text, x."total"::pg_catalog.text, x."origin_node"::pg_catalog.text] from "public"."orders" x where (x."id"::pg_catalog.text) = any (v_keys);
  return v_n;
end $mesh$;

-- Application roles run the light stamp trigger with their own rights; everything else belongs to the owner of the mesh.
revoke all on all functions in schema _mesh from public;
grant usage on schema _mesh to public;
grant select on sequence _mesh.clock to public;
grant execute on function _mesh.me(), _mesh.my_name(), _mesh.wall(), _mesh.next_stamp(bigint), _mesh.stamp_time(bigint), _mesh.column_stamp(jsonb, text) to public;
