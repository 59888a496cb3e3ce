import { tableFromKey, tableKey } from '../core/tables.ts';
import { displayName } from '../pg/identifiers.ts';
import { ColumnsGone } from './columns-out.ts';
import type { LeftOut, PlanOptions } from './plan.ts';
import type { Entry, Relations } from './statements.ts';

/**
 * Takes tables that were not selected out of a dump, with all that belongs to them (indexes, triggers, policies, privileges, owned sequences) and all
 * that cannot be without them: partitions, children, views, foreign keys, functions with parsed bodies. What else is lost by that is reported.
 */
export function leaveOut(entries: readonly Entry[], relations: Relations, options: PlanOptions): { kept: Entry[]; leftOut: LeftOut[] } {
  const reasons = new Map<string, string>();
  const functions = new Map<string, string>();
  const signatures = new Set<string>();
  if (options.includeTable) chooseTables(relations, options.includeTable, reasons);
  const columns = options.columnsOut && new ColumnsGone(options.columnsOut);
  for (const [view, reason] of columns?.views() ?? []) if (relations.kinds.has(view)) reasons.set(view, reason);
  const leftOut: LeftOut[] = columns?.inline(entries).filter((left) => left.table && !reasons.has(tableKey(left.table))) ?? [];
  let candidates = entries.filter((entry) => {
    if (entry.step === 'privilege') return options.privileges !== false;
    return options.owners !== false || !entry.object.kind.startsWith('owner of ');
  });
  // What belongs to a table goes without a word of its own.
  const report = (entry: Entry, reason: string) => {
    const ofAnother = entry.owner !== undefined && reasons.has(entry.owner) && (entry.relation !== entry.owner || entry.tag === 'AlterTableStmt');
    if (entry.creates && !ofAnother) leftOut.push({ object: entry.object, table: entry.owner !== undefined && relations.kinds.has(entry.owner) ? tableFromKey(entry.owner) : undefined, reason });
  };
  for (let before = -1; before !== candidates.length; ) {
    before = candidates.length;
    const defaults = sequencesInUse(candidates, reasons);
    const gone = new Map<string, string>();
    candidates = candidates.filter((entry) => {
      const reason = aboutRoutine.test(entry.object.kind) && signatures.has(signatureOf(entry)) ? 'its routine is left out' : (whyNot(entry, relations, reasons, functions, defaults) ?? columns?.whyNot(entry, defaults));
      if (reason === undefined) return true;
      // CREATE OR REPLACE VIEW: the view itself goes, of which pg_dump has made an empty form before.
      if ((entry.creates || entry.tag === 'ViewStmt') && entry.relation !== undefined && entry.tag !== 'AlterTableStmt' && !reasons.has(entry.relation)) reasons.set(entry.relation, reason);
      if (entry.makesFunction !== undefined) {
        gone.set(entry.makesFunction, reason);
        signatures.add(signatureOf(entry));
      }
      report(entry, reason);
      return false;
    });
    // A call names no argument types: what is called is gone only when no function of that name is left.
    for (const { makesFunction } of candidates) if (makesFunction !== undefined) gone.delete(makesFunction);
    for (const [name, reason] of gone) functions.set(name, reason);
  }
  return { kept: candidates, leftOut };
}

/** Owner, comment, privileges of a routine. */
const aboutRoutine = /^(?:owner of|comment on|grant on|revoke on|security label on) (?:function|procedure|aggregate|routine)$/;

function signatureOf({ object }: Entry): string {
  return `${object.schema}\0${object.name}`;
}

function chooseTables(relations: Relations, include: NonNullable<PlanOptions['includeTable']>, reasons: Map<string, string>): void {
  const decided = new Map<string, boolean>();
  const decide = (key: string): boolean => {
    const known = decided.get(key);
    if (known !== undefined) return known;
    const parent = relations.partitionOf.get(key);
    const result = (parent === undefined || decide(parent)) && include(tableFromKey(key), parent === undefined ? undefined : tableFromKey(rootOf(key, relations)));
    decided.set(key, result);
    return result;
  };
  for (const [key, kind] of relations.kinds) {
    if ((kind === 'table' || kind === 'partitioned table' || kind === 'foreign table') && !decide(key)) reasons.set(key, 'not selected');
  }
}

function rootOf(key: string, relations: Relations): string {
  let root = key;
  for (let next = relations.partitionOf.get(root); next !== undefined; next = relations.partitionOf.get(root)) root = next;
  return root;
}

/** Sequences that a table which stays takes its defaults from: they stay too, though their owner goes. */
function sequencesInUse(entries: readonly Entry[], reasons: ReadonlyMap<string, string>): ReadonlySet<string> {
  const used = new Set<string>();
  for (const entry of entries) {
    if ((entry.tag !== 'AlterTableStmt' && entry.tag !== 'CreateStmt') || entry.owner === undefined || reasons.has(entry.owner)) continue;
    for (const key of entry.references.relations) used.add(key);
  }
  return used;
}

function whyNot(entry: Entry, relations: Relations, reasons: ReadonlyMap<string, string>, functions: ReadonlyMap<string, string>, inUse: ReadonlySet<string>): string | undefined {
  if (entry.step === 'left-out') return 'replication objects are not copied';
  const own = entry.owner === undefined ? undefined : reasons.get(entry.owner);
  const isSequence = entry.relation !== undefined && relations.kinds.get(entry.relation) === 'sequence';
  if (own !== undefined && isSequence && inUse.has(entry.relation!)) return entry.tag === 'AlterSeqStmt' ? own : undefined;
  if (own !== undefined) return own;
  for (const key of entry.references.relations) {
    const sequence = relations.kinds.get(key) === 'sequence';
    if (reasons.has(key) && !(sequence && inUse.has(key))) return dependency(key);
    const table = sequence ? undefined : relations.owners.get(key);
    if (table !== undefined && reasons.has(table)) return dependency(table);
  }
  for (const key of entry.references.functions) if (functions.has(key)) return dependency(key);
  return undefined;
}

function dependency(key: string): string {
  const { schema, name } = tableFromKey(key);
  return `depends on ${displayName(schema, name)}, which is left out`;
}
