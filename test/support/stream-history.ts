import fc from 'fast-check';
import type { Relation } from '../../src/pgoutput/messages.ts';
import type { Lsn } from '../../src/pg/lsn.ts';
import { encodeMessage, keepalive, xlogData, type Encodable } from './pgoutput-encoder.ts';

/** Random histories of a source: what its walsender would send for them, from whatever position, and what must come out. */

export interface TransactionPlan {
  readonly kind: 'plain' | 'streamed' | 'streamed-aborted' | 'prepared' | 'prepared-rolled-back';
  readonly rows: readonly { readonly table: number; readonly sub: number; readonly text: string }[];
  readonly abortedSubs: readonly number[];
  /** Blocks of a streamed transaction; the earlier ones are sent before transactions that commit before it. */
  readonly blocks: number;
  readonly keepaliveAfter: boolean;
}

export const transactionPlan: fc.Arbitrary<TransactionPlan> = fc.record({
  kind: fc.constantFrom('plain', 'plain', 'plain', 'streamed', 'streamed', 'streamed-aborted', 'prepared', 'prepared-rolled-back'), abortedSubs: fc.subarray([1, 2]), blocks: fc.integer({ min: 1, max: 4 }), keepaliveAfter: fc.boolean(),
  rows: fc.array(fc.record({ table: fc.integer({ min: 1, max: 3 }), sub: fc.integer({ min: 0, max: 2 }), text: fc.string({ maxLength: 6 }).map((t) => t.replaceAll('\0', '')) }), { minLength: 1, maxLength: 8 }),
});

const lsn = (n: number) => BigInt(n) as Lsn;

export function relation(oid: number, columns = ['id'], xid?: number): Relation {
  return { type: 'relation', xid, oid, schema: 'public', name: `t${oid}`, replicaIdentity: 'default', columns: columns.map((name, i) => ({ name, key: i === 0, typeOid: 23, typeModifier: -1 })) };
}

export const insert = (oid: number, value: string, xid?: number): Encodable => ({ type: 'insert', xid, relation: oid, newTuple: [value] });

/** Transaction i has the xid 10 (i + 1) and its (prepare or) commit record at 100 (i + 1). */
const xidOf = (i: number) => (i + 1) * 10;
const commitOf = (i: number) => (i + 1) * 100;
const prepareFields = (xid: number, at: number) => ({ prepareLsn: lsn(at), endLsn: lsn(at + 8), prepareTime: 5n, xid, gid: `g${xid}` });

/**
 * What comes for a history to a client that begins at `from`: whatever ends later, tables described anew, as frames. Prepared transactions whose PREPARE ends at or
 * before `from` come with their COMMIT PREPARED alone.
 */
export function streamOf(plans: readonly TransactionPlan[], from: Lsn): Buffer[] {
  const units: { readonly time: number; readonly emit: () => Buffer[] }[] = [];
  const described = new Set<number>();
  const frames = (...messages: Encodable[]) => messages.map((m) => xlogData(encodeMessage(m)));
  const describe = (table: number, xid: number | undefined, known: Set<number>): Encodable[] => {
    if (known.has(table)) return [];
    known.add(table);
    return [relation(table, ['id'], xid)];
  };
  plans.forEach((plan, i) => {
    const xid = xidOf(i);
    const at = commitOf(i);
    if (plan.keepaliveAfter) units.push({ time: at + 50, emit: () => [keepalive(BigInt(at + 50))] });
    if (plan.kind === 'plain' || plan.kind.startsWith('prepared')) {
      const inside = () => plan.rows.flatMap((r) => [...describe(r.table, undefined, described), insert(r.table, r.text)]);
      if (lsn(at + 8) > from) {
        units.push({
          time: at, emit: () => (plan.kind === 'plain'
            ? frames({ type: 'begin', finalLsn: lsn(at), commitTime: 1n, xid }, ...inside(), { type: 'commit', flags: 0, commitLsn: lsn(at), endLsn: lsn(at + 8), commitTime: 1n })
            : frames({ type: 'begin-prepare', ...prepareFields(xid, at) }, ...inside(), { type: 'prepare', flags: 0, ...prepareFields(xid, at) })),
        });
      }
      if (plan.kind !== 'plain' && lsn(at + 28) > from) {
        units.push({
          time: at + 20, emit: () => frames(plan.kind === 'prepared'
            ? { type: 'commit-prepared', flags: 0, commitLsn: lsn(at + 20), endLsn: lsn(at + 28), commitTime: 1n, xid, gid: `g${xid}` }
            : { type: 'rollback-prepared', flags: 0, prepareEndLsn: lsn(at + 8), rollbackEndLsn: lsn(at + 28), prepareTime: 1n, rollbackTime: 1n, xid, gid: `g${xid}` }),
        });
      }
      return;
    }
    if (lsn(at + 8) <= from) return;
    const own = new Set<number>();
    const size = Math.ceil(plan.rows.length / plan.blocks);
    const blocks = Math.ceil(plan.rows.length / size);
    for (let b = 0; b < blocks; b += 1) {
      const rows = plan.rows.slice(b * size, b * size + size);
      units.push({
        time: at - (blocks - b) * 70, emit: () => frames({ type: 'stream-start', xid, firstSegment: b === 0 }, ...rows.flatMap((r) => [...describe(r.table, xid + r.sub, own), insert(r.table, r.text, xid + r.sub)]), { type: 'stream-stop' }),
      });
    }
    units.push({
      time: at, emit: () => {
        const aborts: Encodable[] = plan.abortedSubs.map((sub) => ({ type: 'stream-abort', xid, subxid: xid + sub, abortLsn: undefined, abortTime: undefined }));
        if (plan.kind === 'streamed-aborted') return frames(...aborts, { type: 'stream-abort', xid, subxid: xid, abortLsn: undefined, abortTime: undefined });
        for (const table of own) described.add(table);
        return frames(...aborts, { type: 'stream-commit', xid, flags: 0, commitLsn: lsn(at), endLsn: lsn(at + 8), commitTime: 1n });
      },
    });
  });
  return units.sort((a, b) => a.time - b.time).flatMap((u) => u.emit());
}

/** What must come out of a history, in commit order. */
export function expectedOf(plans: readonly TransactionPlan[]): { readonly xid: number; readonly endLsn: Lsn; readonly changes: string[] }[] {
  return plans.flatMap((plan, i) => {
    if (plan.kind === 'streamed-aborted' || plan.kind === 'prepared-rolled-back') return [];
    const rows = plan.kind === 'streamed' ? plan.rows.filter((r) => !plan.abortedSubs.includes(r.sub)) : plan.rows;
    return [{ xid: xidOf(i), endLsn: lsn(commitOf(i) + (plan.kind === 'prepared' ? 28 : 8)), changes: rows.map((r) => `insert t${r.table} (${r.text})`) }];
  });
}

/** Cuts a list into pieces of the given sizes, again and again, each joined to one buffer. */
export function chunks(frames: readonly Buffer[], sizes: readonly number[]): Buffer[] {
  const out: Buffer[] = [];
  for (let at = 0, i = 0; at < frames.length; i += 1) {
    const next = at + Math.max(1, sizes[i % sizes.length] ?? 1);
    out.push(Buffer.concat(frames.slice(at, next)));
    at = next;
  }
  return out;
}
