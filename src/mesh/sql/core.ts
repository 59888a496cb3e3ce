/** Microseconds since 2020-01-01 UTC, shifted left by nine bits, plus the node's number: 512 nodes, until the year 2590. */
export const stampNodeBits = 9;
/** Rows that were there before the mesh carry this stamp: the first microsecond, node 0, which no node bears. */
export const baselineStamp = 512n;

/** Version of the SQL objects in `_mesh`: nodes with another one do not mix. */
export const meshFormat = 1;

export interface CoreOptions {
  /** A change stamped further ahead of the receiver's clock than this is refused, in milliseconds. */
  readonly maxDriftMs: number;
}

/**
 * The part of generated.sql that is the same for every mesh: clock, journal, registry, collection of tombstones. Which node it is comes from the
 * settings `pgweave.node_id` and `pgweave.node_name`, so that one file serves all nodes.
 */
export function coreSql(options: CoreOptions): string {
  return `create schema _mesh;
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
insert into _mesh.format values (${meshFormat});
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
create function _mesh.max_drift() returns bigint immutable parallel safe language sql return ${Math.round(options.maxDriftMs * 1000)}::bigint;
create function _mesh.next_stamp(above bigint) returns bigint volatile language sql
  return (greatest(_mesh.wall(), (above >> ${stampNodeBits}) + 1, pg_sequence_last_value('_mesh.clock'::regclass) + 1) << ${stampNodeBits}) | _mesh.me();
-- Floating point is fast and, given the same stamp, the same on every node.
create function _mesh.stamp_time(w bigint) returns timestamptz immutable parallel safe language sql return to_timestamp((w >> ${stampNodeBits}) / 1000000.0::float8 + 1577836800);
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
declare ahead bigint := (stamp >> ${stampNodeBits}) - _mesh.wall();
begin
  if ahead > _mesh.max_drift() then
    raise exception using errcode = '55000',
      message = format('a change of node %s is stamped %s s ahead of this node''s clock; at most %s s are allowed',
        coalesce((select name from _mesh.node n where n.id = origin), origin::text), round(ahead / 1000000.0, 1), round(_mesh.max_drift() / 1000000.0, 1)),
      hint = 'Correct the clocks (NTP) of both nodes. Changes of that node wait until then; nothing is lost.';
  end if;
  perform _mesh.raise_clock(stamp >> ${stampNodeBits});
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
  perform _mesh.raise_clock(top >> ${stampNodeBits});
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
end $mesh$;`;
}

/** The end of generated.sql: rights. Application roles need none in `_mesh` but what the stamp triggers call. */
export function grantsSql(): string {
  return `-- Application roles run the light stamp trigger with their own rights; everything else belongs to the owner of the mesh.
revoke all on all functions in schema _mesh from public;
grant usage on schema _mesh to public;
grant select on sequence _mesh.clock to public;
grant execute on function _mesh.me(), _mesh.my_name(), _mesh.wall(), _mesh.next_stamp(bigint), _mesh.stamp_time(bigint), _mesh.column_stamp(jsonb, text) to public;`;
}
