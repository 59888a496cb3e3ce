import { sleep } from '../../src/core/abort.ts';
import { openNode } from '../../src/mesh/connect.ts';
import { sqlstateOf, isConnectionLoss } from '../../src/pg/sqlstate.ts';
import type { Session } from '../../src/pg/session.ts';
import { labTables, type LabTable, type MeshLab } from './mesh-lab.ts';

/** A small generator of numbers from a seed (xorshift): a run can be repeated, as far as servers let it. */
export class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = (Math.imul(seed, 2_654_435_761) >>> 0) || 1;
  }

  /** A whole number from 0 to n - 1. */
  roll(n: number): number {
    let s = this.#state;
    s ^= s << 13;
    s >>>= 0;
    s ^= s >>> 17;
    s ^= s << 5;
    s >>>= 0;
    this.#state = s;
    return s % n;
  }
}

/** Tables that meet every rule: whole rows, columns and counters, unique keys, odd names, checks, foreign keys, and all of it together. */
export function fuzzTables(): LabTable[] {
  const int = { data_type: 'int' };
  const text = { data_type: 'text' };
  return labTables({
    r: { columns: { id: int, a: int, b: text }, constraints: { primary: ['id'] } },
    c: { columns: { id: int, a: int, b: text, n: { data_type: 'bigint' }, q: { data_type: 'numeric' } }, constraints: { primary: ['id'] }, crdt: { columns: { a: { type: 'lww_field' }, n: { type: 'pn_counter' }, q: { type: 'pn_counter' } } } },
    u: { columns: { id: int, email: text, tag: int }, constraints: { primary: ['id'], unique: [['email'], ['tag']] } },
    odd: { schema: 'My App', name: 'Ev"il', columns: { k1: int, 'K 2': text, v: text, arr: { data_type: 'int[]' }, j: { data_type: 'jsonb' } }, constraints: { primary: ['k1', 'K 2'] }, crdt: { columns: { v: { type: 'lww_field' } } } },
    ck: { columns: { id: int, lo: int, hi: int }, constraints: { primary: ['id'], checks: ['lo <= hi'] }, crdt: { columns: { lo: { type: 'lww_field' } } } },
    all: { columns: { id: int, email: text, lo: int, hi: int, n: { data_type: 'smallint' } }, constraints: { primary: ['id'], unique: [['email']], checks: ['lo <= hi'] }, crdt: { columns: { lo: { type: 'lww_field' }, n: { type: 'pn_counter' } } } },
    parent: { columns: { id: int, b: text }, constraints: { primary: ['id'] } },
    child: { columns: { id: int, pid: int, b: text }, constraints: { primary: ['id'], foreign_keys: [{ columns: ['pid'], references: { table: 'parent', columns: ['id'] }, on_delete: 'cascade' }] } },
  }, {
    ck: (v) => !(Number(v['lo']) > Number(v['hi'])),
    all: (v) => !(Number(v['lo']) > Number(v['hi'])) && Math.abs(Number(v['n'])) < 32_768,
  });
}

type Statement = readonly [sql: string, values: readonly unknown[]];

const odd = '"My App"."Ev""il"';

function statement(d: Dice, keys: number): Statement {
  const id = 1 + d.roll(keys);
  const other = 1 + d.roll(keys);
  const a = d.roll(100);
  const b = `v${d.roll(100)}`;
  const email = `e${d.roll(5)}`;
  const tag = d.roll(6);
  const choices: (() => Statement)[] = [
    () => ['insert into r values ($1, $2, $3)', [id, a, b]],
    () => ['insert into r values ($1, $2, $3) on conflict (id) do update set a = excluded.a, b = excluded.b', [id, a, b]],
    () => ['update r set a = $2 where id = $1', [id, a]],
    () => ['update r set a = a + 1 where id between $1 and $2', [Math.min(id, other), Math.max(id, other)]],
    () => ['delete from r where id = $1', [id]],
    () => ['with gone as (delete from r where id = $1 returning id, a) insert into r (id, a, b) select id, a, $2 from gone', [id, b]],
    () => ['insert into r (id, a, b) select g, $2, $3 from generate_series($1::int, $1::int + 3) g on conflict do nothing', [id, a, b]],
    () => ['insert into c values ($1, $2, $3, $4, $5) on conflict (id) do update set n = c.n + excluded.n', [id, a, b, d.roll(9), d.roll(9)]],
    () => ['update c set a = $2 where id = $1', [id, a]],
    () => ['update c set b = $2 where id = $1', [id, b]],
    () => ['update c set n = n + $2::int, q = q - $2 where id = $1', [id, d.roll(9)]],
    () => ['delete from c where id = $1', [id]],
    () => ['update c set id = $2 where id = $1', [id, other]],
    () => ['insert into u values ($1, $2, $3)', [id, email, tag]],
    () => ['insert into u values ($1, $2, $3)', [id, email, tag]],
    () => ['update u set email = $2 where id = $1', [id, email]],
    () => ['update u set tag = $2 where id = $1', [id, d.roll(3) === 0 ? null : tag]],
    () => ['update u set tag = null where id <= $1', [id]],
    () => ['delete from u where id = $1', [id]],
    () => ['update u set id = $2 where id = $1', [id, other]],
    () => ['update r set id = $2 where id = $1', [id, other]],
    () => [`update r set id = s.n from (select id, id + ${keys} as n from r where id <= $1 order by id desc) s where r.id = s.id`, [id % 3]],
    () => [`insert into ${odd} values ($1, $2, $3, array[$4::int], $5) on conflict do nothing`, [id % 3, id % 2 ? 'k 1' : 'k,"2', b, a, JSON.stringify({ a })]],
    () => [`update ${odd} set v = $2, j = $3 where k1 = $1`, [id % 3, b, JSON.stringify([a])]],
    () => [`delete from ${odd} where k1 = $1`, [id % 3]],
    () => ['insert into ck values ($1, $2, $3)', [id, a, a + 10]],
    () => ['update ck set lo = $2 where id = $1', [id, a]],
    () => ['update ck set hi = $2 where id = $1', [id, a]],
    () => ['delete from ck where id = $1', [id]],
    () => ['insert into "all" values ($1, $2, $3, $4, $5)', [id, email, a, a + 10, d.roll(20_000)]],
    () => ['update "all" set lo = $2 where id = $1', [id, a]],
    () => ['update "all" set hi = $2, email = $3 where id = $1', [id, a, email]],
    () => ['update "all" set n = n + $2::int where id = $1', [id, d.roll(16_000)]],
    () => ['update "all" set n = n - $2::int where id = $1', [id, d.roll(16_000)]],
    () => ['delete from "all" where id = $1', [id]],
    () => ['insert into parent values ($1, $2) on conflict do nothing', [id, b]],
    () => ['insert into child values ($1, $2, $3) on conflict do nothing', [id, other, b]],
    () => ['delete from parent where id = $1', [id]],
    () => ['update child set b = $2 where pid = $1', [id, b]],
    () => (d.roll(12) === 0 ? [`truncate ${['r', 'u', 'c', 'parent, child'][d.roll(4)]!}`, []] : ['update r set b = $2 where id = $1', [id, b]]),
  ];
  return choices[d.roll(choices.length)]!();
}

export interface FuzzOptions {
  readonly seed: number;
  /** Statements or transactions by each of two writers on each node. */
  readonly rounds: number;
  readonly keys?: number;
  readonly kills?: boolean;
  readonly partitions?: boolean;
  readonly skew?: boolean;
  readonly collect?: boolean;
}

export interface FuzzReport {
  /** SQLSTATEs that writers met, with counts. */
  readonly errors: Readonly<Record<string, number>>;
  readonly statements: number;
  readonly kills: number;
}

/** Random transactions on all nodes at once, while nodes are cut off, killed and their clocks moved. Ends with all links up and clocks right. */
export async function fuzz(lab: MeshLab, options: FuzzOptions, during?: () => Promise<void>): Promise<FuzzReport> {
  const errors: Record<string, number> = {};
  let statements = 0;
  let kills = 0;
  const writers = lab.nodes.map((_, i) => i);
  const stop = { now: false };
  const chaosDone = chaos(lab, writers.length, new Dice(options.seed + 7919), options, stop, () => void (kills += 1));
  const work = Promise.all(writers.flatMap((i) => [0, 1].map((k) => writer(i, new Dice(options.seed * 1000 + i * 10 + k)))));
  try {
    await Promise.all([work, ...(during ? [during()] : [])]);
  } finally {
    stop.now = true;
    await chaosDone;
  }
  return { errors, statements, kills };

  async function writer(index: number, d: Dice): Promise<void> {
    let session: Session | undefined;
    const connect = async (): Promise<Session> => {
      const made = await openNode(lab.nodes[index]!.node);
      await made.query(`set lock_timeout = '3s'`);
      return made;
    };
    const run = async (sql: string, values?: readonly unknown[]): Promise<boolean> => {
      for (;;) {
        try {
          session ??= await connect();
        } catch {
          await sleep(50);
          continue;
        }
        const current = session;
        try {
          statements += 1;
          await current.query(sql, values);
          return true;
        } catch (error) {
          const state = sqlstateOf(error) ?? (isConnectionLoss(error) ? 'connection' : String(error));
          errors[state] = (errors[state] ?? 0) + 1;
          if (sqlstateOf(error) === undefined || state.startsWith('57P')) {
            await current.close();
            session = undefined;
          }
          return false;
        }
      }
    };
    const keys = options.keys ?? 10;
    for (let round = 0; round < options.rounds; round += 1) {
      if (d.roll(3) === 0) {
        await run(['begin', 'begin', 'begin isolation level repeatable read', 'begin isolation level serializable'][d.roll(4)]!);
        for (let k = 0; k <= d.roll(4); k += 1) {
          await run('savepoint s');
          if (!(await run(...statement(d, keys))) || d.roll(8) === 0) await run('rollback to savepoint s');
        }
        if (d.roll(4) === 0) await sleep(d.roll(40));
        await run(d.roll(5) === 0 ? 'rollback' : 'commit');
      } else await run(...statement(d, keys));
      if (options.collect !== false && d.roll(30) === 0) {
        await run('select _mesh.heartbeat()');
        await run('select _mesh.collect()');
      }
    }
    await session?.close();
  }
}

async function chaos(lab: MeshLab, count: number, d: Dice, options: FuzzOptions, stop: { now: boolean }, onKill: () => void): Promise<void> {
  const quietly = (work: Promise<unknown>) => work.catch(() => undefined);
  while (!stop.now) {
    const index = d.roll(count);
    const other = (index + 1 + d.roll(count - 1)) % count;
    const choice = d.roll(10);
    if (choice < 4 && options.partitions !== false) await quietly(lab.link(other, index, false));
    else if (choice < 7) await quietly(lab.link(other, index, true));
    else if (choice < 9 && options.skew !== false) await quietly(lab.skew(index, d.roll(30) - 15));
    else if (choice === 9 && options.kills !== false) {
      onKill();
      await lab.nodes[index]!.cluster.kill();
      await lab.nodes[index]!.cluster.start();
    }
    await sleep(d.roll(250));
  }
  for (let i = 0; i < lab.nodes.length; i += 1) {
    await lab.skew(i, 0);
    for (let o = 0; o < lab.nodes.length; o += 1) if (o !== i) await quietly(lab.link(o, i, true));
  }
}
