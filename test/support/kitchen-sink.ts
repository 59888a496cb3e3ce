import { quoteIdent, quoteLiteral } from '../../src/pg/identifiers.ts';

export interface KitchenSinkOptions {
  /** Major version of the server that gets it: newer kinds of objects are added where the server knows them. */
  readonly version: number;
  /** Roles are the server's, not the database's: each test takes a prefix of its own. They are made here; `dropSinkRoles` lists them. */
  readonly rolePrefix: string;
}

/** The roles that the kitchen sink makes, for dropping them at the end. */
export function sinkRoles(prefix: string): string[] {
  return [`${prefix}_owner`, `${prefix}_reader`, `${prefix}_writer`, `${prefix}_admin`, `${prefix} "odd" Rôle`];
}

/** Drops the roles; the databases that use them must be gone. Privileges on parameters are the server's, so they go first. */
export function dropSinkRoles(prefix: string): string {
  const drop = (role: string) => `if exists (select from pg_catalog.pg_roles where rolname = ${quoteLiteral(role)}) then drop owned by ${quoteIdent(role)}; drop role ${quoteIdent(role)}; end if;`;
  return `do $do$ begin\n${sinkRoles(prefix).map(drop).join('\n')}\nend $do$`;
}

/** Schemas with names that break naive tools [hard case 36]. */
export const oddSchema = 'Odd "Schema". with\nnewline';
export const oddTable = `tab'le "x".y\\z %s $1 ;--`;
export const longName = `n${'é'.repeat(31)}`;

/**
 * SQL that fills an empty database with more than 300 objects, of every kind that pg_dump knows (except subscriptions and security labels), with
 * rows, large objects and hard names. To be run by a superuser in one go.
 */
export function kitchenSink(options: KitchenSinkOptions): string {
  const parts = [roles(options), extensions, types, functions(options), tables(options), partitions(options), rows, oddNames, indexes(options), keys(options), views(options), rulesAndTriggers, textSearchAndForeign(options), policiesAndGrants(options), comments, bulk(), eventTrigger];
  return `set check_function_bodies = off; set search_path = '';\n${parts.join('\n')}\nreset search_path; reset check_function_bodies;`;
}

function roles({ rolePrefix: p }: KitchenSinkOptions): string {
  const odd = quoteIdent(`${p} "odd" Rôle`);
  return String.raw`
create role ${p}_owner nologin;
create role ${p}_reader nologin;
create role ${p}_writer login password 'sink-writer-password' connection limit 7 valid until '2041-02-03 04:05:06+00' in role ${p}_reader;
create role ${p}_admin login createdb createrole noinherit;
create role ${odd} nologin;
grant ${p}_owner to ${p}_admin with admin option;
grant ${p}_reader to ${odd};
alter role ${p}_writer set work_mem = '7MB';
alter role ${p}_writer set search_path = shop, "$user", public;
comment on role ${p}_reader is 'reads; it''s fine';
do $do$ begin
  execute format('alter role %I in database %I set statement_timeout = ''91s''', '${p}_writer', current_database());
  execute format('alter database %I set datestyle = ''ISO, DMY''', current_database());
  execute format('alter database %I set extra_float_digits = 2', current_database());
  execute format('grant create, connect on database %I to %I', current_database(), '${p}_owner');
  execute format('revoke temporary on database %I from public', current_database());
  execute format('comment on database %I is %L', current_database(), 'the kitchen sink');
end $do$;
create schema shop authorization ${p}_owner;
create schema kinds;
create schema bulk;
create schema ${quoteIdent(oddSchema)};
`;
}

const extensions = String.raw`
create schema ext;
create extension hstore with schema ext;
create extension citext with schema ext;
create extension pg_trgm with schema ext;
create extension btree_gist with schema ext;
create extension "uuid-ossp" with schema ext;
`;

const types = String.raw`
create collation kinds.german from "C";
create collation kinds.natural_order (provider = icu, locale = 'en-u-kn-true');
create collation kinds.no_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
create type kinds.mood as enum ('sad', 'it''s ok', 'happy "quoted"', 'Ünïcode', '');
create type kinds.lone as enum ();
create type kinds.pair as (a integer, "B b" text collate kinds.german);
create type kinds.nested as (p kinds.pair, many kinds.pair[], m kinds.mood);
create type kinds.empty_composite as ();
create domain kinds.posint as integer default 1 not null constraint posint_check check (value > 0);
create domain kinds.small_posint as kinds.posint constraint "small one" check (value < 100);
create domain kinds.codes as text[] check (array_length(value, 1) < 10);
create domain kinds.german_text as text collate kinds.german;
create domain kinds.pair_domain as kinds.pair check ((value).a is distinct from 13);
create domain kinds.unchecked as integer;
alter domain kinds.unchecked add constraint later check (value <> 5) not valid;
create function kinds.float_diff(a double precision, b double precision) returns double precision language sql immutable strict as 'select a - b';
create type kinds.float_span as range (subtype = double precision, subtype_diff = kinds.float_diff, multirange_type_name = kinds.float_spans);
create type kinds.mood_range as range (subtype = kinds.mood);
create type kinds.upper_text;
create function kinds.upper_in(cstring) returns kinds.upper_text language internal immutable strict as 'textin';
create function kinds.upper_out(kinds.upper_text) returns cstring language internal immutable strict as 'textout';
create type kinds.upper_text (input = kinds.upper_in, output = kinds.upper_out, internallength = variable, alignment = int4, storage = extended, category = 'U', default = 'none', delimiter = '|');
create type kinds.left_a_shell;
`;

function functions({ version }: KitchenSinkOptions): string {
  return String.raw`
create function kinds.add(a integer, b integer default 2) returns integer language sql immutable parallel safe leakproof cost 3 as 'select a + b';
create function kinds.add(a text, variadic rest text[]) returns text language sql stable as $$ select a || array_to_string(rest, ';') $$;
create function kinds.out_params(in a integer, out b integer, inout c text) language plpgsql as $$ begin b := a; c := c || '; -- not a comment'; end $$;
create function kinds.as_table(n integer) returns table (id integer, "odd name" text) language sql rows 17 as $$ select i, 'x' from generate_series(1, n) i $$;
create function kinds.definer() returns text language plpgsql security definer set search_path = shop, pg_temp set work_mem = '5MB' as $body$ begin return $inner$a 'b' "c" \d$inner$; end $body$;
create function kinds.atomic(a integer) returns integer language sql begin atomic select a + 1; select case when a > 1 then a else 2 end; end;
create function kinds.atomic_return(a integer) returns integer language sql return a * 2;
create procedure kinds.do_it(a integer, inout b integer) language plpgsql as $$ begin b := a; end $$;
create procedure kinds.do_atomic() language sql begin atomic select 1; end;
create function kinds."Quoted ""Function"" name"("Arg One" integer) returns integer language sql as 'select 1';
create function kinds.poly(a anyelement, b anyarray) returns anyelement language sql as 'select a';
create function kinds.multi(a anycompatible, b anycompatiblearray) returns anycompatible language sql as 'select a';
create function kinds.takes_composite(p kinds.pair) returns kinds.pair[] language sql as 'select array[p]';
create function kinds.stamp() returns trigger language plpgsql as $$ begin return new; end $$;
create function kinds.quiet_event() returns event_trigger language plpgsql as $$ begin null; end $$;
create function kinds.pair_eq(a kinds.pair, b kinds.pair) returns boolean language sql immutable as 'select a.a = b.a';
create function kinds.pair_ne(a kinds.pair, b kinds.pair) returns boolean language sql immutable as 'select a.a <> b.a';
create function kinds.neg(a kinds.pair) returns integer language sql immutable as 'select -a.a';
create function kinds.pair_to_int(a kinds.pair) returns integer language sql immutable as 'select a.a';
create function kinds.int_cmp_back(a integer, b integer) returns integer language sql immutable strict as 'select case when a < b then 1 when a > b then -1 else 0 end';
create operator kinds.=== (function = kinds.pair_eq, leftarg = kinds.pair, rightarg = kinds.pair, commutator = operator(kinds.===), negator = operator(kinds.!==), restrict = eqsel, join = eqjoinsel, merges);
create operator kinds.!== (function = kinds.pair_ne, leftarg = kinds.pair, rightarg = kinds.pair, commutator = operator(kinds.!==), negator = operator(kinds.===));
create operator kinds.@- (function = kinds.neg, rightarg = kinds.pair);
create cast (kinds.pair as integer) with function kinds.pair_to_int(kinds.pair) as assignment;
create cast (kinds.mood as kinds.upper_text) with inout;
create operator family kinds.int_back_family using btree;
create operator class kinds.int_back for type integer using btree family kinds.int_back_family as operator 1 > , operator 2 >= , operator 3 = , operator 4 <= , operator 5 < , function 1 kinds.int_cmp_back(integer, integer);
create operator class kinds.int_plain for type integer using hash as operator 1 = , function 1 hashint4(integer);
create function kinds.sum_state(state bigint, value integer) returns bigint language sql immutable as 'select state + value';
create function kinds.sum_back(state bigint, value integer) returns bigint language sql immutable as 'select state - value';
create function kinds.sum_combine(a bigint, b bigint) returns bigint language sql immutable as 'select a + b';
create aggregate kinds.my_sum(integer) (sfunc = kinds.sum_state, stype = bigint, initcond = '0', combinefunc = kinds.sum_combine, msfunc = kinds.sum_state, minvfunc = kinds.sum_back, mstype = bigint, minitcond = '0', parallel = safe);
create aggregate kinds.my_percentile(double precision order by anyelement) (sfunc = ordered_set_transition, stype = internal, finalfunc = percentile_disc_final, finalfunc_extra, finalfunc_modify = read_write);
create aggregate kinds.my_rank(variadic "any" order by variadic "any") (sfunc = ordered_set_transition_multi, stype = internal, finalfunc = rank_final, finalfunc_extra, hypothetical);
create conversion kinds.latin for 'LATIN1' to 'UTF8' from iso8859_1_to_utf8;
create transform for integer language sql (from sql with function prsd_lextype(internal), to sql with function int4recv(internal));
create access method heap_twin type table handler heap_tableam_handler;
create function kinds.sink_handler() returns language_handler language c as '$libdir/plpgsql', 'plpgsql_call_handler';
create function kinds.sink_inline(internal) returns void language c strict as '$libdir/plpgsql', 'plpgsql_inline_handler';
create function kinds.sink_validator(oid) returns void language c strict as '$libdir/plpgsql', 'plpgsql_validator';
create trusted language sink_language handler kinds.sink_handler inline kinds.sink_inline validator kinds.sink_validator;
create function kinds.in_sink_language(a integer) returns integer language sink_language as 'begin return a; end';
${version >= 16 ? `create function kinds.uses_transform(a integer) returns integer language sql transform for type integer as 'select 1';` : ''}
`;
}

function tables({ version, rolePrefix: p }: KitchenSinkOptions): string {
  return String.raw`
create sequence shop.standalone start 100 increment 5 minvalue 10 maxvalue 1000 cache 3 cycle;
create sequence shop.downwards as integer increment -2 minvalue -5000 maxvalue -1 start -1;
create sequence shop.tiny as smallint;
create sequence shop.never_used;
create table shop.customers (
  id bigint generated always as identity (start 1000 increment 10), name text not null, email ext.citext, mood kinds.mood default 'it''s ok', born date, balance numeric(12,2) default 0.00 not null,
  tags text[] default array['a', 'b''c'], attributes jsonb default '{}', "Quoted ""Col"" é" text collate kinds.german default E'tab\there',
  full_name text generated always as (upper(name) || '!') stored, constraint customers_balance check (balance > -1000000), constraint only_here check (name <> 'nobody') no inherit
);
create table shop.products (id serial, sku varchar(20) not null, price numeric(10,4), size kinds.posint, span kinds.float_span, spans kinds.float_spans, dims kinds.pair, parts kinds.nested, codes kinds.codes, label character(5), shout kinds.upper_text);
create table shop.orders (id bigint generated by default as identity, customer_id bigint not null, parent_id bigint, note text, placed_at timestamptz default now(), status text default 'new', during tstzrange);
create table shop.order_items (order_id bigint not null, line integer not null, product_id integer, quantity kinds.small_posint, dropped_one integer, price numeric, dropped_two text);
alter table shop.order_items drop column dropped_one, drop column dropped_two;
alter table shop.order_items add column extra text default 'added', add column "order" integer default 7;
create table shop.bookings (room integer not null, during tstzrange not null, who text);
create table shop.cycle_a (id integer not null, b_id integer);
create table shop.cycle_b (id integer not null, a_id integer);
create unlogged table shop.scratch (id integer, payload bytea);
create table shop.no_columns ();
create table shop.no_key (a integer, b json, c point, d xml);
create table shop.params (a integer not null, b text, c text) with (fillfactor = 71, autovacuum_enabled = false, toast.autovacuum_enabled = false, parallel_workers = 2);
alter table shop.params alter column b set storage external, alter column b set statistics 371, alter column a set (n_distinct = -0.5), alter column c set compression pglz;
create table shop.twin (a integer, b text) using heap_twin;
create table kinds.of_type of kinds.pair (a with options not null default 5, constraint of_type_check check (a <> 77));
create table kinds.everything (
  id integer not null, c_bool boolean, c_int2 smallint, c_int4 integer, c_int8 bigint, c_float4 real, c_float8 double precision, c_numeric numeric, c_numeric_neg numeric(20,5), c_money money, c_text text, c_varchar varchar(40), c_char char(8), c_name name, c_internal_char "char",
  c_bytea bytea, c_date date, c_time time(3), c_timetz timetz, c_ts timestamp, c_tstz timestamptz, c_interval interval, c_interval_day interval day to second(2), c_uuid uuid, c_inet inet, c_cidr cidr, c_mac macaddr, c_mac8 macaddr8,
  c_bit bit(5), c_varbit bit varying(20), c_json json, c_jsonb jsonb, c_jsonpath jsonpath, c_xml xml, c_tsvector tsvector, c_tsquery tsquery, c_point point, c_line line, c_lseg lseg, c_box box, c_path path, c_polygon polygon, c_circle circle,
  c_int4range int4range, c_nummultirange nummultirange, c_daterange daterange, c_oid oid, c_regclass regclass, c_lsn pg_lsn, c_snapshot pg_snapshot, c_tid tid, c_xid8 xid8,
  c_enum kinds.mood, c_domain kinds.german_text, c_composite kinds.pair, c_hstore ext.hstore, c_citext ext.citext,
  a_int integer[], a_text text[][], a_enum kinds.mood[], a_composite kinds.pair[], a_domain kinds.posint[], a_numeric numeric[], a_hstore ext.hstore[], a_range kinds.float_span[]
);
create table shop.parent (id integer not null, kind text default 'parent', constraint parent_positive check (id > 0));
create table shop.other_parent (other text, weight real);
create table shop.child (extra text) inherits (shop.parent);
create table shop.grandchild (kind text default 'grandchild', extra text, constraint local_check check (extra <> 'x')) inherits (shop.child, shop.other_parent);
create table shop.${quoteIdent(longName)} (id integer primary key, v text);
create table shop."select" ("from" integer, "where" text, "order" integer, "user" text);
alter table shop.orders owner to ${p}_owner;
alter table shop.customers owner to ${p}_owner;
alter sequence shop.standalone owner to ${p}_owner;
alter sequence shop.tiny owned by shop.no_key.a;
${version >= 15 ? 'create unlogged sequence shop.fleeting;' : ''}
${version >= 18 ? String.raw`create table shop.virtuals (a integer, b integer generated always as (a * 2) virtual, c text);
alter table shop.virtuals add constraint c_not_null not null c not valid;
create table shop.named_not_null (a integer constraint "a is needed" not null, b integer constraint inherits_not not null no inherit);
create table shop.not_enforced (a integer, constraint lax check (a > 0) not enforced);` : ''}
`;
}

function partitions({ version }: KitchenSinkOptions): string {
  return String.raw`
create table shop.events (id bigint not null, at timestamptz not null, kind text not null, payload jsonb, constraint events_kind check (kind <> '')) partition by range (at);
create table shop.events_2024 partition of shop.events for values from ('2024-01-01 00:00+00') to ('2025-01-01 00:00+00');
create table shop.events_2025 partition of shop.events for values from ('2025-01-01 00:00+00') to ('2026-01-01 00:00+00') partition by list (kind);
create table bulk.events_2025_click partition of shop.events_2025 for values in ('click', 'it''s');
create table shop.events_2025_rest partition of shop.events_2025 default;
create table shop.events_old (gone integer, kind text not null, payload jsonb, at timestamptz not null, id bigint not null, constraint events_kind check (kind <> ''));
alter table shop.events_old drop column gone;
alter table shop.events attach partition shop.events_old for values from (minvalue) to ('2024-01-01 00:00+00');
create table shop.hashed (id integer not null, region text default 'eu') partition by hash (id);
create table shop.hashed_0 partition of shop.hashed (region default 'zero') for values with (modulus 2, remainder 0);
create table shop.hashed_1 partition of shop.hashed for values with (modulus 2, remainder 1);
create table shop.by_expression (id integer not null, name text) partition by list (lower(name) collate "C");
create table shop.by_expression_null partition of shop.by_expression for values in (null);
create table shop.by_expression_default partition of shop.by_expression default;
create table shop.childless (id integer primary key, at date) partition by range (id);
${version >= 17 ? `create table shop.counted (id bigint generated by default as identity (start 50), v text) partition by range (id);\ncreate table shop.counted_1 partition of shop.counted for values from (1) to (1000);` : ''}
`;
}

const rows = String.raw`
insert into shop.customers (name, email, born, balance, tags, attributes) select 'customer ' || i, 'User' || i || '@Example.org', date '1970-01-01' + i, i * 1.25, array['t' || i, null], jsonb_build_object('n', i) from generate_series(1, 120) i;
insert into shop.products (sku, price, size, span, spans, dims, parts, codes, label, shout) select 'SKU-' || i, i / 7.0, i, kinds.float_span(i, i + 1), kinds.float_spans(kinds.float_span(i, i + 1)), row(i, 'x')::kinds.pair, row(row(i, 'y'), array[row(1, 'z')::kinds.pair], 'sad')::kinds.nested, array['c' || i], 'l', 'shout'::kinds.upper_text from generate_series(1, 40) i;
insert into shop.orders (customer_id, parent_id, note) select 1000 + 10 * (i % 120), case when i > 1 then i - 1 end, repeat('n', i % 50) from generate_series(1, 300) i;
insert into shop.order_items (order_id, line, product_id, quantity, price) select 1 + i % 300, i / 300, 1 + i % 40, 1 + i % 9, i from generate_series(0, 599) i;
insert into shop.bookings select i, tstzrange('2025-01-01 00:00+00', '2025-01-02 00:00+00'), 'w' from generate_series(1, 10) i;
insert into shop.cycle_a values (1, 1), (2, 2); insert into shop.cycle_b values (1, 2), (2, 1);
insert into shop.scratch select i, decode(lpad(to_hex(i), 8, '0'), 'hex') from generate_series(1, 50) i;
insert into shop.no_columns select from generate_series(1, 3);
insert into shop.no_key values (1, '{"a": 1,   "a": 2}', '(1,2)', '<a/>'), (1, '{"a": 1,   "a": 2}', '(1,2)', '<a/>'), (null, null, null, null);
insert into shop.params values (1, repeat('toast ', 3000), 'c'); insert into shop.twin values (1, 'twin');
insert into kinds.of_type values (1, 'typed');
insert into shop.parent values (1), (2); insert into shop.child values (3, 'child', 'e'); insert into shop.grandchild values (4, 'g', 'e', 'o', 1.5);
insert into shop.${quoteIdent(longName)} values (1, 'long'); insert into shop."select" values (1, 'w', 2, 'u');
insert into shop.events select i, timestamptz '2023-06-01 00:00+00' + i * interval '10 days', case i % 3 when 0 then 'click' when 1 then 'it''s' else 'view' end, jsonb_build_object('i', i) from generate_series(1, 90) i;
insert into shop.hashed (id) select i from generate_series(1, 30) i;
insert into shop.by_expression values (1, 'A'), (2, null);
insert into kinds.everything (id) values (1);
insert into kinds.everything values (2, true, -32768, -2147483648, -9223372036854775808, '-0', 'NaN', 'NaN', -123456789012345.12345, '-92233720368547758.08', E'tab\tnew\nline\\backslash', 'v', 'c', 'n', 'x',
  '\x00ff5c0a', 'infinity', '24:00:00', '23:59:59.999999-15:59', '-infinity', '4714-11-24 00:00:00+00 BC', '-178000000 years', '3 days 04:05:06.789', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '::1/64', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05',
  '10101', '1', '{"dup":1, "dup":2}', '{"big":12345678901234567890.123456789}', '$.a[*] ? (@ > 1)', '<a>é</a>', '''it''''s'':1A', '''a'' & !''b''', '(1.5,-0)', '{1,2,3}', '[(0,0),(1,1)]', '(1,1),(0,0)', '[(0,0),(1,1)]', '((0,0),(1,1),(1,0))', '<(0,0),1>',
  'empty', '{[1,2),(3,)}', '[2024-02-29,infinity)', 4294967295, 'pg_class', '16/B374D848', '10:20:10,14,15', '(1,2)', '18446744073709551615',
  'happy "quoted"', 'd', '(1,"a ""b"" \\ ,")', '"k 1"=>"v\"2", e=>NULL', 'CiText', '[0:2]={1,NULL,3}', '{{"a","b,c"},{NULL,"\"q\""}}', '{sad,"it''s ok",""}', '{"(1,x)",NULL}', '{1,2}', '{NaN,1e-1000,-1e+131}', '{"a=>1"}', '{"[1,2)",empty}');
insert into kinds.everything (id, c_numeric, c_float4, c_float8, c_tstz, c_numeric_neg) values (3, ('1' || repeat('0', 1000) || '.' || repeat('9', 50))::numeric, 1.1754944e-38, 1.7976931348623157e308, 'infinity', 0.1), (4, 'Infinity', 'Infinity', '-Infinity', '0001-01-01 00:00:00+00 BC', -0.00001);
select setval('shop.standalone', 105), nextval('shop.downwards'), nextval('shop.downwards'), setval('shop.tiny', 5, false);
select lo_from_bytea(910001, '\x00010203ff'), lo_from_bytea(910002, decode(repeat('abcd', 4000), 'hex')), lo_create(910003);
comment on large object 910001 is 'a large object; with a comment';
`;

const oddNames = String.raw`
create table ${quoteIdent(oddSchema)}.${quoteIdent(oddTable)} (id integer primary key, "a.b" text, "new
line" integer, "%s" text default '%s\', "😀" text, "UPPER" integer unique, "  " integer);
insert into ${quoteIdent(oddSchema)}.${quoteIdent(oddTable)} values (1, 'x', 2, 'y', 'z', 3, 4), (2, null, null, null, null, null, null);
create index ${quoteIdent(`idx ${oddTable}`)} on ${quoteIdent(oddSchema)}.${quoteIdent(oddTable)} ("a.b", "new
line" desc) where "😀" <> E'it''s \\ ; $$';
create view ${quoteIdent(oddSchema)}."view; drop" as select "a.b" as "x;y", 'a;b -- c /* d */' as "lit", "😀" from ${quoteIdent(oddSchema)}.${quoteIdent(oddTable)};
create sequence ${quoteIdent(oddSchema)}."seq ""q""";
create type ${quoteIdent(oddSchema)}."Type ""T""" as enum ('a;b', 'c''d', 'e\f');
create table ${quoteIdent(oddSchema)}."таблица" ("колонка" ${quoteIdent(oddSchema)}."Type ""T""" default 'c''d', "ref" integer references ${quoteIdent(oddSchema)}.${quoteIdent(oddTable)} ("UPPER"), n integer default nextval(${quoteLiteral(`"${oddSchema.replaceAll('"', '""')}"."seq ""q"""`)}::regclass));
insert into ${quoteIdent(oddSchema)}."таблица" values ('a;b', 3), ('e\f', null);
comment on table ${quoteIdent(oddSchema)}.${quoteIdent(oddTable)} is E'a comment; with '' and \\ and\n-- a second line\n\\unrestrict fake';
`;

function indexes({ version }: KitchenSinkOptions): string {
  return String.raw`
create index customers_name on shop.customers (name collate "C" desc nulls last, lower(email::text));
create index customers_partial on shop.customers (born) where balance > 0 and mood <> 'sad';
create index customers_attributes on shop.customers using gin (attributes jsonb_path_ops);
create index customers_tags on shop.customers using gin (tags) with (fastupdate = off);
create index customers_trgm on shop.customers using gist (name ext.gist_trgm_ops (siglen = 64));
create index customers_hash on shop.customers using hash (name);
create unique index customers_email on shop.customers (email) include (name);
create index orders_placed on shop.orders using brin (placed_at) with (pages_per_range = 16);
create index orders_during on shop.orders using gist (during);
create index orders_expression on shop.orders ((coalesce(note, '') || 'x'), status) with (fillfactor = 77);
alter index shop.orders_expression alter column 1 set statistics 432;
create index products_back on shop.products (id kinds.int_back);
create index products_text on shop.products using spgist (sku);
create unique index no_key_identity on shop.params (a);
create unique index identity_index on shop.hashed (id);
create index events_kind_idx on shop.events (kind, at desc);
create index only_one_partition on shop.events_2024 (at);
create statistics shop.customers_ndistinct (ndistinct) on name, born from shop.customers;
create statistics shop.customers_all on name, born, balance from shop.customers;
create statistics shop.orders_expressions (mcv, dependencies) on (lower(note)), status from shop.orders;
alter statistics shop.customers_all set statistics 123;
${version >= 15 ? 'create unique index products_sku_nulls on shop.products (sku, label) nulls not distinct;' : ''}
`;
}

function keys({ version }: KitchenSinkOptions): string {
  return String.raw`
alter table shop.customers add constraint customers_pkey primary key (id) with (fillfactor = 91);
alter table shop.products add constraint products_pkey primary key (id) include (sku), add constraint products_sku_key unique (sku);
alter table shop.orders add constraint orders_pkey primary key (id), add constraint orders_unique_later unique (customer_id, id) deferrable initially deferred;
alter table shop.order_items add constraint order_items_pkey primary key (order_id, line);
alter table shop.cycle_a add primary key (id); alter table shop.cycle_b add primary key (id);
alter table kinds.everything add primary key (id);
alter table shop.parent add primary key (id); alter table shop.child add primary key (id);
alter table shop.events add constraint events_pkey primary key (id, at, kind);
alter table shop.hashed add constraint hashed_pkey primary key (id);
alter table shop.bookings add constraint no_overlap exclude using gist (room with =, during with &&) where (room > 0), add constraint bookings_deferred exclude using btree (room with =, who with =) deferrable;
alter table shop.orders add constraint orders_customer foreign key (customer_id) references shop.customers on update cascade on delete restrict;
alter table shop.orders add constraint orders_parent foreign key (parent_id) references shop.orders on delete set null;
alter table shop.order_items add constraint items_order foreign key (order_id) references shop.orders on delete cascade deferrable initially deferred;
alter table shop.order_items add constraint items_product foreign key (product_id) references shop.products match full;
alter table shop.cycle_a add constraint a_to_b foreign key (b_id) references shop.cycle_b deferrable; alter table shop.cycle_b add constraint b_to_a foreign key (a_id) references shop.cycle_a;
alter table shop.hashed add constraint hashed_customer foreign key (id) references shop.products deferrable;
create table shop.refers_to_partitioned (id integer, at timestamptz, kind text, event_id bigint, foreign key (event_id, at, kind) references shop.events);
insert into shop.refers_to_partitioned select 1, at, kind, id from shop.events limit 3;
alter table shop.no_key add constraint later_check check (a < 100) not valid;
alter table shop.params add constraint late_fk foreign key (a) references shop.products not valid;
alter table shop.params replica identity using index no_key_identity;
alter table shop.no_key replica identity full;
alter table shop.bookings replica identity nothing;
alter table shop.customers cluster on customers_name;
${version >= 15 ? 'alter table shop.order_items add constraint items_product_again foreign key (product_id, line) references shop.hashed_pair on delete set null (product_id);'.replace('shop.hashed_pair', 'shop.pairs') : ''}
${version >= 18 ? String.raw`create table shop.temporal (id integer, valid daterange, constraint temporal_pkey primary key (id, valid without overlaps));
create table shop.temporal_ref (id integer, at daterange, constraint temporal_fk foreign key (id, period at) references shop.temporal (id, period valid));
insert into shop.temporal values (1, '[2024-01-01,2025-01-01)'); insert into shop.temporal_ref values (1, '[2024-02-01,2024-03-01)');
alter table shop.not_enforced add constraint lax_fk foreign key (a) references shop.products not enforced;` : ''}
`.replace('alter table shop.order_items add constraint items_product_again', () => 'create table shop.pairs (a integer, b integer, primary key (a, b));\ninsert into shop.pairs select p, l from generate_series(1, 40) p, generate_series(0, 1) l;\nalter table shop.order_items add constraint items_product_again');
}

function views({ version }: KitchenSinkOptions): string {
  return String.raw`
create view shop.customer_orders as select c.id, c.name, count(*) as orders from shop.customers c join shop.orders o on o.customer_id = c.id group by c.id;
create view shop.barrier with (security_barrier = true) as select id, name from shop.customers where balance > 0 with cascaded check option;
create view shop.local_checked as select id, note from shop.orders where id > 0 with local check option;
create recursive view shop.numbers (n) as values (1) union all select n + 1 from numbers where n < 5;
create view shop.renamed ("Col 1", "select") as select 1, 'x'::text collate "C";
create view shop.windowed as select id, row_number() over w, sum(balance) filter (where born > '1970-02-01') over (w rows between 1 preceding and current row) from shop.customers window w as (partition by mood order by id);
alter view shop.renamed alter column "Col 1" set default 5;
create view shop.on_partitioned as select kind, count(*) from only shop.events group by kind;
create materialized view shop.totals as select customer_id, count(*) as n, sum(id) as s from shop.orders group by customer_id;
create unique index totals_customer on shop.totals (customer_id);
create materialized view shop.totals_of_totals with (fillfactor = 80) as select n, count(*) from shop.totals group by n;
create materialized view shop.a_first_by_name as select * from shop.totals_of_totals;
create materialized view shop.not_populated as select id from shop.customers with no data;
create materialized view shop.by_key as select c.id, c.name from shop.customers c group by c.id;
create index by_key_name on shop.by_key (name);
create view shop.over_matview as select * from shop.by_key;
create function kinds.uses_view() returns setof shop.customer_orders language sql begin atomic select * from shop.customer_orders; end;
${version >= 15 ? 'create view shop.invoker with (security_invoker = true) as select id from shop.orders;' : ''}
`;
}

const rulesAndTriggers = String.raw`
create rule note_inserts as on insert to shop.barrier do also notify something;
create rule protect as on delete to shop.products where old.id < 10 do instead nothing;
create rule log_update as on update to shop.twin where old.b <> new.b do instead (insert into shop.scratch values (old.a); insert into shop.scratch values (new.a));
alter table shop.twin disable rule log_update;
create trigger stamp_before before insert or update of name, balance on shop.customers for each row when (new.balance > 0) execute function kinds.stamp('a''b', '\x', '');
create trigger stamp_after after update on shop.orders referencing old table as gone new table as came for each statement execute function kinds.stamp();
create constraint trigger stamp_later after insert on shop.orders from shop.customers deferrable initially deferred for each row execute function kinds.stamp();
create trigger stamp_events after insert on shop.events for each row execute function kinds.stamp();
create trigger instead_of instead of update on shop.windowed for each row execute function kinds.stamp();
create trigger on_truncate before truncate on shop.orders execute function kinds.stamp();
create trigger always_one before delete on shop.products for each row execute function kinds.stamp();
create trigger replica_one before delete on shop.products for each row execute function kinds.stamp();
create trigger "Disabled ""one""" before delete on shop.products for each row execute function kinds.stamp();
alter table shop.products enable always trigger always_one, enable replica trigger replica_one, disable trigger "Disabled ""one""";
alter table shop.events_2024 disable trigger stamp_events;
`;

function textSearchAndForeign({ version, rolePrefix: p }: KitchenSinkOptions): string {
  return String.raw`
create text search template kinds.simple_template (lexize = dsimple_lexize, init = dsimple_init);
create text search parser kinds.plain_parser (start = prsd_start, gettoken = prsd_nexttoken, end = prsd_end, lextypes = prsd_lextype, headline = prsd_headline);
create text search dictionary kinds.german_stem_of_ours (template = snowball, language = german, stopwords = german);
create text search dictionary kinds.plain_dictionary (template = kinds.simple_template);
create text search configuration kinds.search (parser = pg_catalog."default");
alter text search configuration kinds.search add mapping for asciiword, word with kinds.german_stem_of_ours, pg_catalog.simple;
alter text search configuration kinds.search add mapping for numword with kinds.plain_dictionary;
create foreign data wrapper sink_wrapper options (debug 'true', "odd ""option""" 'it''s');
create server sink_server type 'oracle' version '9' foreign data wrapper sink_wrapper options (host 'far.example', port '1521');
create user mapping for ${p}_writer server sink_server options (user 'remote', password 'sink-remote-password');
create user mapping for public server sink_server;
create foreign table kinds.far_away (id integer options (column_name 'ID') not null, v text default 'x', constraint far_check check (id > 0)) server sink_server options (table_name 'FAR');
create publication sink_publication for table shop.customers;
create index customers_search on shop.customers using gin (to_tsvector('kinds.search', name));
${version >= 15 ? 'create publication sink_schema_publication for tables in schema bulk;' : ''}
`;
}

/** The parameter has a name of its own: its privileges are the server's, and tests that change the same at once meet `tuple concurrently updated`. */
function policiesAndGrants({ version, rolePrefix: p }: KitchenSinkOptions): string {
  const odd = quoteIdent(`${p} "odd" Rôle`);
  return String.raw`
alter table shop.customers enable row level security;
alter table shop.orders enable row level security; alter table shop.orders force row level security;
create policy readers on shop.customers for select to ${p}_reader, ${odd} using (balance > 0);
create policy writers on shop.customers as restrictive for insert to public with check (name <> 'root');
create policy everything on shop.orders using (true) with check (customer_id > 0);
grant usage on schema shop to ${p}_reader; grant all on schema shop to ${odd} with grant option;
grant select on all tables in schema bulk to ${p}_reader;
grant select on shop.customers to ${p}_reader; grant insert, update on shop.orders to ${p}_writer with grant option;
grant select (id, name), update (balance) on shop.customers to ${p}_writer;
grant truncate, references, trigger on shop.products to public;
grant usage on sequence shop.standalone to ${p}_writer;
revoke execute on function kinds.definer() from public; grant execute on function kinds.definer() to ${p}_reader;
grant execute on procedure kinds.do_it(integer, integer) to ${p}_writer;
revoke usage on type kinds.mood from public; grant usage on type kinds.mood to ${p}_owner; grant usage on domain kinds.posint to ${p}_reader;
revoke usage on language sink_language from public;
grant usage on foreign server sink_server to ${p}_reader; grant usage on foreign data wrapper sink_wrapper to ${p}_reader;
grant select on large object 910001 to ${p}_reader; alter large object 910002 owner to ${p}_owner;
alter default privileges for role ${p}_owner in schema shop grant select on tables to ${p}_reader;
alter default privileges for role ${p}_owner revoke execute on functions from public;
alter default privileges in schema bulk grant usage on sequences to ${p}_writer with grant option;
alter function kinds.definer() owner to ${p}_owner; alter view shop.customer_orders owner to ${p}_owner; alter type kinds.mood owner to ${p}_owner; alter materialized view shop.totals owner to ${p}_owner;
${version >= 15 ? `grant set on parameter ${p}.flavour to ${p}_writer;` : ''}
${version >= 17 ? `grant maintain on shop.products to ${p}_owner;` : ''}
`;
}

const comments = String.raw`
comment on schema shop is 'the shop''s schema'; comment on table shop.customers is 'people; who buy'; comment on column shop.customers."Quoted ""Col"" é" is 'a column';
comment on index shop.customers_name is 'an index'; comment on constraint customers_pkey on shop.customers is 'a key'; comment on constraint posint_check on domain kinds.posint is 'a domain''s check';
comment on sequence shop.standalone is 'a sequence'; comment on view shop.customer_orders is 'a view'; comment on column shop.customer_orders.orders is 'a view''s column'; comment on materialized view shop.totals is 'a matview';
comment on function kinds.add(integer, integer) is 'a function'; comment on procedure kinds.do_it(integer, integer) is 'a procedure'; comment on aggregate kinds.my_sum(integer) is 'an aggregate';
comment on operator kinds.=== (kinds.pair, kinds.pair) is 'an operator'; comment on operator kinds.@- (none, kinds.pair) is 'a prefix operator'; comment on operator class kinds.int_back using btree is 'an operator class'; comment on operator family kinds.int_back_family using btree is 'a family';
comment on type kinds.mood is 'an enum'; comment on domain kinds.posint is 'a domain'; comment on collation kinds.german is 'a collation'; comment on conversion kinds.latin is 'a conversion'; comment on cast (kinds.pair as integer) is 'a cast';
comment on trigger stamp_before on shop.customers is 'a trigger'; comment on rule protect on shop.products is 'a rule'; comment on policy readers on shop.customers is 'a policy'; comment on statistics shop.customers_all is 'statistics';
comment on text search configuration kinds.search is 'a search configuration'; comment on text search dictionary kinds.plain_dictionary is 'a dictionary'; comment on text search parser kinds.plain_parser is 'a parser'; comment on text search template kinds.simple_template is 'a template';
comment on foreign data wrapper sink_wrapper is 'a wrapper'; comment on server sink_server is 'a server'; comment on foreign table kinds.far_away is 'a foreign table'; comment on extension hstore is 'our own words'; comment on language sink_language is 'a language'; comment on access method heap_twin is 'an access method';
comment on transform for integer language sql is 'a transform'; comment on column kinds.pair.a is 'an attribute'; comment on publication sink_publication is 'not copied';
`;

/** Plain tables, three objects each, to make the number. */
function bulk(): string {
  return Array.from({ length: 50 }, (_, i) => {
    const name = `t_${String(i).padStart(2, '0')}`;
    return `create table bulk.${name} (id integer primary key, v text default 'v${i}', at timestamptz default now()); create index on bulk.${name} (v); insert into bulk.${name} select g, 'row ' || g, '2025-01-01 00:00+00' from generate_series(1, ${i * 3}) g;`;
  }).join('\n');
}

const eventTrigger = String.raw`
create event trigger sink_event on ddl_command_end when tag in ('CREATE TABLE', 'DROP TABLE') execute function kinds.quiet_event();
create event trigger sink_event_off on sql_drop execute function kinds.quiet_event();
alter event trigger sink_event_off disable;
comment on event trigger sink_event is 'an event trigger';
`;
