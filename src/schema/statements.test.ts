import { describe, expect, it } from 'vitest';
import type { TableRef } from '../core/tables.ts';
import { redact } from '../core/redact.ts';
import { cutStatements } from './cut.ts';
import type { SchemaPlan } from './plan.ts';
import { splitQualified } from './references.ts';
import { orderByReads } from './refresh-order.ts';
import { settingSql } from './settings-sql.ts';
import { planSchema } from './statements.ts';

async function cut(text: string): Promise<string[]> {
  const out: string[] = [];
  for await (const { sql } of cutStatements(text)) out.push(sql);
  return out;
}

const without = (...names: string[]) => ({ includeTable: (table: TableRef) => !names.includes(`${table.schema}.${table.name}`) });
const sqlOf = (list: readonly { readonly sql: string }[]) => list.map((statement) => statement.sql);
const everything = (plan: SchemaPlan) => [...plan.preData, ...plan.indexes, ...plan.attach, ...plan.foreignKeys, ...plan.postData];

const shop = `
CREATE TABLE "s"."customers" ("id" integer NOT NULL, "name" "text");
CREATE SEQUENCE "s"."customers_id_seq" AS integer;
ALTER SEQUENCE "s"."customers_id_seq" OWNED BY "s"."customers"."id";
CREATE TABLE "s"."orders" ("id" integer NOT NULL, "customer" integer);
ALTER TABLE "s"."orders" OWNER TO "app";
CREATE VIEW "s"."big" AS SELECT "customers"."id" FROM "s"."customers";
CREATE VIEW "s"."bigger" AS SELECT "big"."id" FROM "s"."big";
CREATE FUNCTION "s"."atomic"() RETURNS integer LANGUAGE "sql" BEGIN ATOMIC SELECT count(*)::integer FROM "s"."customers"; END;
ALTER TABLE ONLY "s"."customers" ALTER COLUMN "id" SET DEFAULT "nextval"('"s"."customers_id_seq"'::"regclass");
ALTER TABLE ONLY "s"."customers" ADD CONSTRAINT "customers_pkey" PRIMARY KEY ("id") WITH (fillfactor='91');
ALTER TABLE ONLY "s"."orders" ADD CONSTRAINT "orders_key" UNIQUE NULLS NOT DISTINCT ("customer", "id") INCLUDE ("id") DEFERRABLE INITIALLY DEFERRED;
CREATE INDEX "orders_customer" ON "s"."orders" USING "btree" ("customer");
CREATE TRIGGER "t" AFTER INSERT ON "s"."orders" FOR EACH ROW EXECUTE FUNCTION "s"."f"();
ALTER TABLE ONLY "s"."orders" ADD CONSTRAINT "orders_customer_fkey" FOREIGN KEY ("customer") REFERENCES "s"."customers"("id");
GRANT SELECT ON TABLE "s"."orders" TO "reader";
`;

describe('cutting a dump', () => {
  it('keeps semicolons, quotes and comment marks inside of strings, bodies and names', async () => {
    const statements = [
      `CREATE FUNCTION f() RETURNS text LANGUAGE plpgsql AS $a$ begin return 'x;y'; end; -- no end\n$a$`, `CREATE FUNCTION g() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 2 END; END`, `COMMENT ON TABLE "a;b""c" IS E'it''s \\\\ ; /* '`, `SELECT 'ünïcödé 😀;'`,
    ];
    expect(await cut(`--\n-- head; with a semicolon\n--\n\n${statements.join(';\n\n--\n-- Name: x; Type: y\n--\n\n')};\n\n`)).toEqual(statements);
  });

  it('takes out the \\restrict lines of the dump, and no line of a string', async () => {
    const comment = `COMMENT ON TABLE t IS 'a\n\\restrict KEY123\n\\unrestrict KEY124\nb'`;
    expect(await cut(`--\n-- PostgreSQL database dump\n--\n\n\\restrict KEY123\n\nSET a = 1;\n${comment};\n\n\\unrestrict KEY123\n\n`)).toEqual(['SET a = 1', comment]);
  });

  it('cuts long dumps at entries, though the mark of an entry stands in a string', async () => {
    const long = 'x'.repeat(90_000);
    const statements = [`COMMENT ON TABLE a IS '${long}'`, `COMMENT ON TABLE b IS '${long}\n--\n-- Name: not an entry; Type: TABLE\n--\n${long}\n--\n-- again\n${long}'`, `COMMENT ON TABLE c IS 'é'`];
    expect(await cut(statements.map((sql) => `--\n-- Name: y\n--\n\n${sql};\n`).join('\n'))).toEqual(statements);
  });

  it('says where a dump does not parse', async () => {
    await expect(cut('CREATE TABLE a (b int);\nCREATE NONSENSE here;')).rejects.toMatchObject({ code: 'dump-unreadable', message: expect.stringContaining('NONSENSE') });
  });
});

describe('planning', () => {
  it('lays statements out in phases, keys as an index and a constraint', async () => {
    const plan = await planSchema(shop);
    expect(plan.preData.map((s) => s.object.kind)).toEqual(['table', 'sequence', 'sequence', 'table', 'owner of table', 'view', 'view', 'function', 'table']);
    expect(plan.indexes.map(({ name, lock, table, sql, constraint }) => ({ name, lock, table: table.name, sql, constraint: constraint?.sql }))).toEqual([
      { name: 'customers_pkey', lock: 'share', table: 'customers', sql: `create unique index "customers_pkey" on "s"."customers" ("id") with ("fillfactor" = '91')`, constraint: 'alter table only "s"."customers" add constraint "customers_pkey" primary key using index "customers_pkey"' },
      { name: 'orders_key', lock: 'share', table: 'orders', sql: 'create unique index "orders_key" on "s"."orders" ("customer", "id") include ("id") nulls not distinct', constraint: 'alter table only "s"."orders" add constraint "orders_key" unique using index "orders_key" deferrable initially deferred' },
      { name: 'orders_customer', lock: 'share', table: 'orders', sql: 'CREATE INDEX "orders_customer" ON "s"."orders" USING "btree" ("customer")', constraint: undefined },
    ]);
    expect(plan.foreignKeys).toMatchObject([{ name: 'orders_customer_fkey', table: { name: 'orders' }, referenced: { name: 'customers' }, inSteps: { add: expect.stringMatching(/ not valid$/), validate: 'alter table "s"."orders" validate constraint "orders_customer_fkey"' } }]);
    expect(plan.postData.map((s) => s.object.kind)).toEqual(['trigger', 'grant on table']);
    expect(plan.relations.map((r) => `${r.kind} ${r.name}`)).toEqual(['table customers', 'sequence customers_id_seq', 'table orders', 'view big', 'view bigger']);
    const keys = [...everything(plan), ...plan.indexes.flatMap((index) => index.constraint ?? [])].map((statement) => statement.key);
    expect(new Set(keys).size).toBe(keys.length);
  });

  it('keeps what depends on keys behind them, and gives indexes of matviews to their refresh', async () => {
    const plan = await planSchema(`
      CREATE TABLE "s"."t" ("id" integer);
      CREATE VIEW "s"."v" AS SELECT NULL::integer AS "id";
      CREATE MATERIALIZED VIEW "s"."m" AS SELECT "t"."id" FROM "s"."t" WITH NO DATA;
      CREATE MATERIALIZED VIEW "s"."empty" AS SELECT "t"."id" FROM "s"."t" WITH NO DATA;
      ALTER TABLE ONLY "s"."t" ADD CONSTRAINT "t_pkey" PRIMARY KEY ("id");
      CREATE OR REPLACE VIEW "s"."v" AS SELECT "t"."id" FROM "s"."t" GROUP BY "t"."id";
      CREATE MATERIALIZED VIEW "s"."late" AS SELECT "v"."id" FROM "s"."v" WITH NO DATA;
      CREATE UNIQUE INDEX "m_id" ON "s"."m" ("id");
      CREATE INDEX "empty_id" ON "s"."empty" ("id");
      ALTER TABLE "s"."m" CLUSTER ON "m_id";
      COMMENT ON INDEX "s"."m_id" IS 'x';
      CREATE EVENT TRIGGER "e" ON ddl_command_end EXECUTE FUNCTION "s"."f"();
      REVOKE ALL ON TABLE "s"."m" FROM "x";`, { refresh: [{ schema: 's', name: 'late' }, { schema: 's', name: 'm' }, { schema: 's', name: 'gone' }] });
    expect(plan.preData.map((s) => `${s.object.kind} ${s.object.name}`)).toEqual(['table t', 'view v', 'materialized view m', 'materialized view empty']);
    expect(plan.indexes.map((index) => index.name)).toEqual(['t_pkey']);
    expect(plan.postData.map((s) => `${s.object.kind} ${s.object.name}`)).toEqual([
      'view v', 'materialized view late', 'revoke on table m', 'rows of materialized view late', 'rows of materialized view m', 'index m_id', 'table m', 'index empty_id', 'comment on index m_id', 'event trigger e',
    ]);
    expect(plan.postData.find((s) => s.object.kind === 'comment on index')?.table).toEqual({ schema: 's', name: 'm' });
  });

  it('puts indexes and keys of partitioned tables behind those of their partitions', async () => {
    const plan = await planSchema(`
      CREATE TABLE "s"."p" ("id" integer) PARTITION BY RANGE ("id");
      CREATE TABLE "s"."p1" ("id" integer);
      ALTER TABLE ONLY "s"."p" ATTACH PARTITION "s"."p1" FOR VALUES FROM (1) TO (2);
      ALTER TABLE ONLY "s"."p" ADD CONSTRAINT "p_pkey" PRIMARY KEY ("id");
      ALTER TABLE ONLY "s"."p1" ADD CONSTRAINT "p1_pkey" PRIMARY KEY ("id");
      CREATE INDEX "p_i" ON ONLY "s"."p" ("id");
      CREATE INDEX "p1_i" ON "s"."p1" ("id");
      ALTER INDEX "s"."p_i" ATTACH PARTITION "s"."p1_i";
      ALTER TABLE "s"."p" ADD CONSTRAINT "p_fk" FOREIGN KEY ("id") REFERENCES "s"."x"("id");`);
    expect(plan.preData).toHaveLength(3);
    expect(plan.indexes.map((index) => index.name)).toEqual(['p1_pkey', 'p1_i']);
    expect(sqlOf(plan.attach).map((sql) => sql.split(' ').slice(0, 3).join(' '))).toEqual(['ALTER TABLE ONLY', 'CREATE INDEX "p_i"', 'ALTER INDEX "s"."p_i"']);
    expect(plan.foreignKeys[0]?.inSteps).toBeUndefined();
  });

  it('makes no index first where PostgreSQL cannot make a key of it', async () => {
    const plan = await planSchema(`
      CREATE TABLE "s"."parent" ("id" integer NOT NULL);
      CREATE TABLE "s"."child" ("x" integer) INHERITS ("s"."parent");
      CREATE TABLE "s"."times" ("id" integer, "valid" "daterange");
      ALTER TABLE ONLY "s"."child" ADD CONSTRAINT "child_pkey" PRIMARY KEY ("id");
      ALTER TABLE ONLY "s"."times" ADD CONSTRAINT "times_pkey" PRIMARY KEY ("id", "valid" WITHOUT OVERLAPS);
      ALTER TABLE ONLY "s"."times" ADD CONSTRAINT "times_excl" EXCLUDE USING "gist" ("valid" WITH &&);
      ALTER TABLE "s"."times" ADD CONSTRAINT "fk" FOREIGN KEY ("id") REFERENCES "s"."parent"("id") NOT VALID;
      ALTER TABLE "s"."times" ADD CONSTRAINT "positive" CHECK (("id" > 0)) NOT VALID;`);
    expect(plan.indexes.map(({ name, lock, constraint }) => ({ name, lock, constraint }))).toEqual(['child_pkey', 'times_pkey', 'times_excl'].map((name) => ({ name, lock: 'exclusive', constraint: undefined })));
    expect(plan.foreignKeys[0]?.inSteps).toBeUndefined();
    expect(plan.postData.map((s) => s.object.name)).toEqual(['times.positive']);
  });

  it('leaves a table out with all that belongs to it and cannot be without it, and reports what others lose', async () => {
    const plan = await planSchema(shop, without('s.customers'));
    const names = everything(plan).map((s) => `${s.object.kind} ${s.object.name}`);
    expect(names).toEqual(['table orders', 'owner of table orders', 'index orders_key', 'index orders_customer', 'trigger orders.t', 'grant on table orders']);
    expect(plan.leftOut.map((left) => `${left.object.kind} ${left.object.name}: ${left.reason}`).toSorted((a, b) => (a < b ? -1 : 1))).toEqual([
      'foreign key orders.orders_customer_fkey: depends on s.customers, which is left out', 'function atomic(): depends on s.customers, which is left out', 'table customers: not selected', 'view big: depends on s.customers, which is left out',
      'view bigger: depends on s.big, which is left out',
    ]);
  });

  it('keeps a sequence that another table uses, without its owner', async () => {
    const plan = await planSchema(`${shop} ALTER TABLE ONLY "s"."orders" ALTER COLUMN "customer" SET DEFAULT "nextval"('"s"."customers_id_seq"'::"regclass");`, without('s.customers'));
    const sequence = plan.preData.filter((s) => s.object.kind === 'sequence');
    expect(sqlOf(sequence)).toEqual(['CREATE SEQUENCE "s"."customers_id_seq" AS integer']);
    expect(sqlOf(everything(plan)).filter((sql) => sql.includes('nextval'))).toHaveLength(1);
  });

  it('leaves out a view that the dump makes in two steps', async () => {
    const plan = await planSchema(`CREATE VIEW "s"."two" AS SELECT NULL::integer AS "id"; ${shop} CREATE OR REPLACE VIEW "s"."two" AS SELECT "customers"."id" FROM "s"."customers" GROUP BY "customers"."id"; CREATE VIEW "s"."over" AS SELECT "two"."id" FROM "s"."two";`, without('s.customers'));
    expect(sqlOf(everything(plan)).filter((sql) => sql.includes('VIEW'))).toEqual([]);
    expect(plan.leftOut.map((left) => left.object.name)).toEqual(expect.arrayContaining(['two', 'over']));
  });

  it('asks for partitions with their root, and leaves them out with it', async () => {
    const dump = `
      CREATE TABLE "s"."p" ("id" integer) PARTITION BY RANGE ("id");
      CREATE TABLE "s"."mid" ("id" integer) PARTITION BY RANGE ("id");
      CREATE TABLE "s"."leaf" ("id" integer);
      ALTER TABLE ONLY "s"."p" ATTACH PARTITION "s"."mid" DEFAULT;
      ALTER TABLE ONLY "s"."mid" ATTACH PARTITION "s"."leaf" DEFAULT;
      CREATE INDEX "p_i" ON ONLY "s"."p" ("id");
      CREATE INDEX "mid_i" ON ONLY "s"."mid" ("id");
      CREATE INDEX "leaf_i" ON "s"."leaf" ("id");
      ALTER INDEX "s"."p_i" ATTACH PARTITION "s"."mid_i";
      ALTER INDEX "s"."mid_i" ATTACH PARTITION "s"."leaf_i";
      ALTER TABLE ONLY "s"."mid" ADD CONSTRAINT "mid_pkey" PRIMARY KEY ("id");
      ALTER TABLE ONLY "s"."leaf" ADD CONSTRAINT "leaf_pkey" PRIMARY KEY ("id");
      ALTER INDEX "s"."mid_pkey" ATTACH PARTITION "s"."leaf_pkey";`;
    const asked: string[] = [];
    const all = await planSchema(dump, { includeTable: (table, root) => asked.push(`${table.name} of ${root?.name}`) > 0 });
    expect(asked.toSorted((a, b) => (a < b ? -1 : 1))).toEqual(['leaf of p', 'mid of p', 'p of undefined']);
    expect(everything(all)).toHaveLength(13);
    expect(everything(await planSchema(dump, without('s.p')))).toEqual([]);
    const one = await planSchema(dump, without('s.leaf'));
    expect(sqlOf(everything(one)).filter((sql) => sql.includes('leaf'))).toEqual([]);
    expect(everything(one)).toHaveLength(7);
  });

  it('leaves publications, owners and privileges out', async () => {
    const text = `${shop} CREATE PUBLICATION "p" FOR TABLE "s"."orders"; ALTER PUBLICATION "p" OWNER TO "x"; CREATE SUBSCRIPTION "u" CONNECTION 'host=a password=verysecret' PUBLICATION "p" WITH (connect = false); ALTER DEFAULT PRIVILEGES FOR ROLE "a" GRANT SELECT ON TABLES TO "b";`;
    const plan = await planSchema(text, { owners: false, privileges: false });
    expect(everything(plan).map((s) => s.object.kind).filter((kind) => /publication|subscription|owner|grant|privileges/.test(kind))).toEqual([]);
    expect(plan.leftOut.map((left) => left.object.kind)).toEqual(['publication', 'subscription']);
  });

  it('carries the access method of a table along and hides passwords of user mappings', async () => {
    const plan = await planSchema(`SET default_table_access_method = "heap"; CREATE TABLE "a"."x" (); SET default_table_access_method = "columnar"; CREATE TABLE "a"."y" (); CREATE USER MAPPING FOR "u" SERVER "far" OPTIONS ("user" 'someone', "password" 'farSecret77');`);
    expect(sqlOf(plan.preData).slice(0, 2)).toEqual(['CREATE TABLE "a"."x" ()', 'set local default_table_access_method = "columnar"; CREATE TABLE "a"."y" (); set local default_table_access_method to default']);
    expect(redact(plan.preData[2]!.sql)).not.toContain('farSecret77');
    expect(redact(plan.preData[2]!.sql)).toContain('someone');
  });

  it('knows how to drop what it makes', async () => {
    const plan = await planSchema(`
      CREATE TYPE "s"."e" AS ENUM ('a');
      CREATE FUNCTION "s"."f"("a" integer, "b" "s"."e"[], OUT "c" "text") RETURNS "text" LANGUAGE "sql" AS 'select 1';
      CREATE OPERATOR "s".=== (FUNCTION = "s"."f", LEFTARG = "s"."e", RIGHTARG = integer);
      CREATE AGGREGATE "s"."g"(integer, "text") (SFUNC = "s"."h", STYPE = bigint);
      CREATE CAST ("s"."e" AS integer) WITH INOUT;
      CREATE TABLE "s"."t" ();`);
    expect(plan.preData.map((s) => s.drop)).toEqual([
      'drop type if exists "s"."e" cascade', 'drop routine if exists "s"."f"("pg_catalog"."int4", "s"."e"[]) cascade', 'drop operator if exists "s".=== ("s"."e", "pg_catalog"."int4") cascade', 'drop routine if exists "s"."g"("pg_catalog"."int4", "text") cascade',
      'drop cast if exists ("s"."e" as "pg_catalog"."int4") cascade', undefined,
    ]);
  });
});

describe('small parts', () => {
  it('reads qualified names as regclass takes them', () => {
    expect(splitQualified('"a.""b"".c".d')).toEqual(['a."b".c', 'd']);
    expect(splitQualified('s."t"')).toEqual(['s', 't']);
  });

  it('writes settings back as they were, lists as lists', () => {
    expect(settingSql('work_mem=7MB')).toBe(`"work_mem" to '7MB'`);
    expect(settingSql('search_path=shop, "$user", "a,b ""c"""')).toBe(`"search_path" to 'shop', '$user', 'a,b "c"'`);
    expect(settingSql('search_path=""')).toBe(`"search_path" to ''`);
    expect(settingSql('app.user=it\'s=x')).toBe(`"app"."user" to 'it''s=x'`);
  });

  it('orders refreshes after what they read, through views too', () => {
    const row = (oid: number, name: string, kind: string, reads: number[], populated = true) => ({ oid, schema: 's', name, kind, populated, reads });
    expect(orderByReads([row(1, 'a', 'm', [2]), row(2, 'v', 'v', [3]), row(3, 'z', 'm', []), row(4, 'b', 'm', [1], false), row(5, 'c', 'm', [])]).map((t) => t.name)).toEqual(['z', 'a', 'c']);
  });
});
