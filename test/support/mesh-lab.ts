import { sleep } from '../../src/core/abort.ts';
import { generateSql, planOf } from '../../src/mesh/generate.ts';
import { applySchema } from '../../src/mesh/apply-schema.ts';
import { openNode } from '../../src/mesh/connect.ts';
import { mergeInto, stateOfLine, valuesOf, visibility, type JournalTable, type RowState } from '../../src/mesh/model.ts';
import { subscriptionName } from '../../src/mesh/names.ts';
import { parseNodes, type MeshNode } from '../../src/mesh/nodes.ts';
import { parseSchema, type InputTable, type SchemaInput } from '../../src/mesh/schema-input.ts';
import { setupReplication } from '../../src/mesh/setup-replication.ts';
import { factsOf, planName } from '../../src/mesh/table-plan.ts';
import { quoteIdent } from '../../src/pg/identifiers.ts';
import { Session } from '../../src/pg/session.ts';
import { startCluster, type Cluster } from '../../src/servers/cluster.ts';
import type { EmbeddedVersion } from '../../src/servers/binaries.ts';

/** A table as tests know it: its definition, and how the model reads its journal. */
export interface LabTable {
  readonly input: InputTable;
  readonly name: string;
  readonly base: string;
  readonly model: JournalTable;
}

export function labTables(schema: SchemaInput, valid: Readonly<Record<string, JournalTable['valid']>> = {}): LabTable[] {
  return parseSchema(schema).map((input) => {
    const facts = factsOf(planOf(input));
    const check = valid[input.id];
    const numeric = new Set(input.columns.filter((c) => c.type.startsWith('numeric')).map((c) => c.name));
    return {
      input, name: planName(facts.plan), base: facts.base,
      model: {
        byColumn: facts.byColumn, uniques: input.uniques, sent: facts.sent.map((c) => c.name), keys: input.primary, counters: facts.counters.map((c) => c.name), ...(check ? { valid: check } : {}),
        canonical: (column, value) => (numeric.has(column) && value.includes('.') ? value.replace(/\.?0+$/, '') : value),
        rowColumns: facts.sent.filter((c) => c.merge === 'row').map((c) => c.name),
      },
    };
  });
}

/** Settings of nodes in tests: quick to come back after an error or a kill. */
const nodeSettings = { wal_retrieve_retry_interval: "'50ms'", shared_buffers: "'24MB'", max_connections: '60', autovacuum: 'off', synchronous_commit: 'on' };

export interface LabNode {
  readonly node: MeshNode;
  readonly cluster: Cluster;
}

/** A mesh of real servers, each in a cluster of its own. */
export class MeshLab implements AsyncDisposable {
  readonly nodes: LabNode[] = [];
  readonly tables: readonly LabTable[];
  readonly sql: string;

  constructor(tables: readonly LabTable[], options: { readonly maxDriftMs?: number; readonly patch?: (sql: string) => string } = {}) {
    this.tables = tables;
    const sql = generateSql(tables.map((t) => t.input), options.maxDriftMs === undefined ? {} : { maxDriftMs: options.maxDriftMs });
    this.sql = recordCollected(options.patch ? options.patch(sql) : sql);
  }

  /** Starts a server with an empty database, not yet a member. */
  async addServer(version: EmbeddedVersion, name = `n${this.nodes.length + 1}`, id = this.nodes.length + 1): Promise<LabNode> {
    const cluster = await startCluster({ version, template: true, settings: nodeSettings });
    await using admin = await Session.open(specOf(cluster, 'postgres'), { role: 'test' });
    await admin.query('create database mesh');
    const lab: LabNode = { cluster, node: parseNodes([{ id, name, host: '127.0.0.1', port: cluster.port, db: 'mesh', user: 'postgres' }])[0]! };
    this.nodes.push(lab);
    return lab;
  }

  /** Servers, schema and replication. */
  async start(versions: readonly EmbeddedVersion[]): Promise<void> {
    for (const version of versions) await this.addServer(version);
    for (const { node } of this.nodes) await applySchema(node, this.sql);
    await setupReplication(this.nodes.map((n) => n.node));
  }

  get meshNodes(): MeshNode[] {
    return this.nodes.map((n) => n.node);
  }

  /** Runs statements on a node, each call in a session of its own; gives the last rows. */
  async on<Row extends object = Record<string, unknown>>(index: number, sql: string, values?: readonly unknown[]): Promise<Row[]> {
    await using session = await openNode(this.nodes[index]!.node);
    return await session.query<Row>(sql, values);
  }

  /** Stops (or lets go on) what flows from one node to another. */
  async link(from: number, to: number, enabled: boolean): Promise<void> {
    await this.on(to, `alter subscription ${quoteIdent(subscriptionName(this.nodes[to]!.node.name, this.nodes[from]!.node.name))} ${enabled ? 'enable' : 'disable'}`);
  }

  async isolate(index: number, enabled = false): Promise<void> {
    for (let other = 0; other < this.nodes.length; other += 1) {
      if (other === index) continue;
      await this.link(index, other, enabled);
      await this.link(other, index, enabled);
    }
  }

  /** Moves a node's clock, as its stamps see it. */
  async skew(index: number, seconds: number): Promise<void> {
    await this.on(index, `create or replace function _mesh.wall() returns bigint volatile language sql return ((pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) - 1577836800 + ${seconds}) * 1000000)::bigint`);
  }

  /** Waits until everything written so far has been applied everywhere. */
  async settle(timeoutMs = 90_000): Promise<void> {
    const end = Date.now() + timeoutMs;
    for (let from = 0; from < this.nodes.length; from += 1) {
      const name = this.nodes[from]!.node.name;
      await using session = await openNode(this.nodes[from]!.node);
      const slots = this.nodes.filter((n) => n.node.name !== name).map((n) => subscriptionName(n.node.name, name));
      const { lsn } = await session.one<{ lsn: string }>('select pg_current_wal_insert_lsn()::text as lsn');
      // A written record lets an idle walsender tell its position.
      await session.query(`select pg_logical_emit_message(true, 'settle', '')`);
      for (;;) {
        const rows = await session.query<{ slot_name: string; ok: boolean; active: boolean }>('select slot_name, confirmed_flush_lsn >= $2::pg_lsn as ok, active from pg_replication_slots where slot_name = any ($1)', [slots, lsn]);
        if (rows.length === slots.length && rows.every((r) => r.ok)) break;
        if (Date.now() > end) throw new Error(`did not settle: from ${name}: ${JSON.stringify(rows)}; ${await this.applyErrors()}`);
        await sleep(40);
      }
    }
  }

  async applyErrors(): Promise<string> {
    const out: string[] = [];
    for (let i = 0; i < this.nodes.length; i += 1) {
      const rows = await this.on<{ subname: string; apply_error_count: bigint }>(i, 'select subname, apply_error_count from pg_stat_subscription_stats').catch(() => []);
      out.push(...rows.filter((r) => r.apply_error_count > 0n).map((r) => `${r.subname}: ${r.apply_error_count} errors`));
    }
    return out.join(', ');
  }

  /** Every local change that any node has recorded, merged by the model: what all nodes must show. */
  async oracle(extra: readonly { readonly table: string; readonly state: RowState }[] = []): Promise<Map<string, Map<string, RowState>>> {
    const stores = new Map(this.tables.map((t) => [t.name, new Map<string, RowState>()]));
    for (const { table, state } of extra) mergeInto(stores.get(table)!, state);
    const forgotten = await this.#collected();
    for (let i = 0; i < this.nodes.length; i += 1) {
      const lines = await this.on<{ tbl: string; op: string; w: string; m: string | null; img: (string | null)[] }>(i, `select tbl, op, w::text, m::text, img from _mesh.journal where op <> 'H'`);
      for (const line of lines) {
        const table = this.tables.find((t) => t.name === line.tbl)!;
        const state = stateOfLine(line, table.model);
        // What lay before a collected tombstone is forgotten everywhere: a later life of the key does not know of it.
        if (BigInt(line.w) > (forgotten.get(JSON.stringify([line.tbl, state.key])) ?? 0n)) mergeInto(stores.get(line.tbl)!, state);
      }
    }
    return stores;
  }

  /** The highest tombstone of each key that any node has collected. */
  async #collected(): Promise<Map<string, bigint>> {
    const out = new Map<string, bigint>();
    for (let i = 0; i < this.nodes.length; i += 1) {
      for (const { tbl, d, ghost } of await this.on<{ tbl: string; d: bigint; ghost: string }>(i, 'select tbl, d, ghost::text as ghost from _mesh.test_collected')) {
        const { model } = this.tables.find((t) => t.name === tbl)!;
        const row = JSON.parse(ghost) as Record<string, string | number>;
        const { key } = stateOfLine({ op: 'D', w: '0', m: model.byColumn ? '{"g":0,"b":0,"s":{},"c":{}}' : null, img: model.sent.map((name) => (model.keys.includes(name) ? String(row[name]) : null)) }, model);
        const at = JSON.stringify([tbl, key]);
        if (d > (out.get(at) ?? 0n)) out.set(at, d);
      }
    }
    return out;
  }

  /** What a node holds of a table: kind (l visible, p hidden) and values by key. */
  async state(index: number, table: LabTable): Promise<Map<string, string>> {
    const rows = await this.on<{ key: string; kind: string; w: string; img: (string | null)[]; m: string | null }>(index, `select key, kind::text as kind, w::text as w, img, m::text as m from _mesh.${quoteIdent(`state_${table.base}`)}() where kind <> 'd'`);
    return new Map(rows.map((r) => [table.model.keys.length === 1 ? table.model.canonical!(table.model.keys[0]!, r.key) : r.key, JSON.stringify([r.kind, r.w, r.img, r.m])]));
  }

  /** Differences among the nodes, and between the nodes and the oracle. Empty where all is well. */
  async differences(oracle?: Map<string, Map<string, RowState>>): Promise<string[]> {
    const stores = oracle ?? (await this.oracle());
    const out: string[] = [];
    for (const table of this.tables) {
      const states = await Promise.all(this.nodes.map((_, i) => this.state(i, table)));
      for (const key of new Set(states.flatMap((s) => [...s.keys()]))) {
        const seen = states.map((s) => s.get(key) ?? '-');
        if (new Set(seen).size > 1) out.push(`${table.name} ${key}: ${seen.map((s, i) => `${this.nodes[i]!.node.name} ${s}`).join(' | ')}`);
      }
      const { visible, hidden } = visibility(stores.get(table.name)!.values(), table.model);
      const want = new Map([...visible.map((s) => [s.key, expected(s, 'l', table)] as const), ...hidden.map((s) => [s.key, expected(s, 'p', table)] as const)]);
      states.forEach((have, i) => {
        for (const key of new Set([...want.keys(), ...have.keys()])) {
          const [kind, w, img] = JSON.parse(have.get(key) ?? '["-"]') as [string, string?, (string | null)[]?];
          const got = img === undefined ? kind : JSON.stringify([kind, w, img.map((v, k) => (kind === 'p' && table.model.counters.includes(table.model.sent[k]!) ? null : v))]);
          if (got !== (want.get(key) ?? '-')) out.push(`${table.name} ${key}: ${this.nodes[i]!.node.name} has ${got}, the model says ${want.get(key) ?? '-'}`);
        }
      });
    }
    return out;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.nodes.map((n) => n.cluster.destroy()));
  }
}

/** Makes collect() write down what it drops: the model cannot know when a tombstone went, only that all had acknowledged it. */
function recordCollected(sql: string): string {
  const replacements: readonly (readonly [string, string])[] = [
    ['returning _mesh_d) select count(*), max(_mesh_d) from gone', 'returning *), noted as (insert into _mesh.test_collected select $3, _mesh_d, to_jsonb(gone) from gone) select count(*), max(_mesh_d) from gone'],
    ['into n, highest using st, everybody;', 'into n, highest using st, everybody, t.name;'],
    ['-- Up to which transaction of each node everything has been applied here', 'create table _mesh.test_collected (tbl text, d bigint, ghost jsonb);\n-- Up to which transaction of each node everything has been applied here'],
  ];
  let out = sql;
  for (const [from, to] of replacements) {
    if (out.split(from).length !== 2) throw new Error(`generated.sql no longer has, once: ${from}`);
    out = out.replace(from, () => to);
  }
  return out;
}

function expected(state: RowState, kind: 'l' | 'p', table: LabTable): string {
  const values = valuesOf(state);
  // Sums of hidden rows are not compared: one that its column cannot hold is NULL there.
  return JSON.stringify([kind, state.w.toString(), table.model.sent.map((name) => (kind === 'p' && table.model.counters.includes(name) ? null : (values[name] ?? null)))]);
}

export function specOf(cluster: Cluster, database: string) {
  return { hosts: [{ host: '127.0.0.1', port: cluster.port }], database, user: 'postgres', password: undefined, passwordSource: undefined, sslMode: 'disable' as const, sslRootCert: undefined, sslCert: undefined, sslKey: undefined, sslPassword: undefined, connectTimeoutMs: 10_000, targetSessionAttrs: 'any' as const, options: undefined };
}

