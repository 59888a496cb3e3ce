import type { Change, LargeTransaction, SourceTransaction } from '../changes/change-log.ts';
import { tableKey, type TableRef } from '../core/tables.ts';
import type { Lsn } from '../pg/lsn.ts';

type Wants = (relation: TableRef) => boolean;

/** Leaves a target's tables of what all targets get. */
export class TableFilter {
  readonly #wanted: () => ReadonlySet<string>;
  #answers: { readonly wanted: ReadonlySet<string>; readonly wants: Wants } | undefined;

  /** `wanted`: the target's tables, by `tableKey`; another set when that changes. */
  constructor(wanted: () => ReadonlySet<string>) {
    this.#wanted = wanted;
  }

  transaction(transaction: SourceTransaction): SourceTransaction {
    const wants = this.#wants();
    return { ...facts(transaction), endLsn: transaction.endLsn, bytes: transaction.bytes, changeCount: transaction.changeCount, changes: () => filter(transaction.changes(), wants) };
  }

  /** `passed` is called when all parts were given. */
  large(transaction: LargeTransaction, passed: (endLsn: Lsn) => void = () => undefined): LargeTransaction {
    const wants = this.#wants();
    return {
      ...facts(transaction),
      async *parts(signal) {
        for await (const part of transaction.parts(signal)) yield { bytes: part.bytes, changeCount: part.changeCount, changes: () => filter(part.changes(), wants) };
        passed(transaction.endLsn);
      },
      get endLsn() {
        return transaction.endLsn;
      },
    };
  }

  /** Answers by relation, of which there is one object for each description of a table: a set of names asked for every change would cost as much as the change itself. */
  #wants(): Wants {
    const wanted = this.#wanted();
    if (this.#answers?.wanted === wanted) return this.#answers.wants;
    const known = new WeakMap<TableRef, boolean>();
    const wants = (relation: TableRef) => {
      let answer = known.get(relation);
      if (answer === undefined) {
        answer = wanted.has(tableKey(relation));
        known.set(relation, answer);
      }
      return answer;
    };
    this.#answers = { wanted, wants };
    return wants;
  }
}

function facts(t: SourceTransaction | LargeTransaction) {
  return { xid: t.xid, commitLsn: t.commitLsn, commitTime: t.commitTime, origin: t.origin, gid: t.gid };
}

/** A truncate loses the tables that are not wanted; with none left it is no change. */
function* filter(changes: Iterable<Change>, wants: Wants): Iterable<Change> {
  let last: TableRef | undefined;
  let wanted = false;
  for (const change of changes) {
    if (change.type === 'message') continue;
    if (change.type === 'truncate') {
      const relations = change.relations.filter(wants);
      if (relations.length > 0) yield { ...change, relations };
      continue;
    }
    if (change.relation !== last) {
      last = change.relation;
      wanted = wants(last);
    }
    if (wanted) yield change;
  }
}
