import { createHash } from 'node:crypto';
import type { Constraint, Node } from 'libpg-query';
import { rememberSecret } from '../core/redact.ts';
import { tableFromKey, tableKey, type TableRef } from '../core/tables.ts';
import { displayName, qualifiedName, quoteIdent } from '../pg/identifiers.ts';
import { classify, type Classified } from './classify.ts';
import { dropColumnsSql } from './columns-out.ts';
import { cutStatements } from './cut.ts';
import { dropSql } from './drop-sql.ts';
import { keyAsIndex } from './keys.ts';
import { leaveOut } from './leave-out.ts';
import type { ForeignKeyStatement, IndexStatement, PlannedRelation, PlanOptions, SchemaObject, SchemaPhase, SchemaPlan, Statement } from './plan.ts';
import { referencesOf, relationKey, stringsOf, type References } from './references.ts';

/** A statement of the dump with everything that planning asks of it. */
export interface Entry extends Classified {
  readonly sql: string;
  /** The parser's name of the statement, such as `CreateStmt`. The tree itself is let go: those of a large schema would take gigabytes. */
  readonly tag: string;
  /** Of ALTER TABLE … ADD CONSTRAINT. */
  readonly constraint: Constraint | undefined;
  readonly drop: string | undefined;
  readonly references: References;
  /** Where it goes on the target, other than the default. */
  readonly tablespace: string | undefined;
  /** Of ALTER SEQUENCE … OWNED BY: key of the table. */
  readonly ownedBy: string | undefined;
  /** Key of the table, view or matview that it belongs to. */
  owner: string | undefined;
}

/** What the dump says about its relations as a whole. */
export interface Relations {
  readonly kinds: ReadonlyMap<string, PlannedRelation['kind']>;
  /** Partition to the table it is attached to. */
  readonly partitionOf: ReadonlyMap<string, string>;
  /** Tables with INHERITS. */
  readonly children: ReadonlySet<string>;
  /** Index, statistics object or owned sequence to its table. */
  readonly owners: ReadonlyMap<string, string>;
}

/**
 * Cuts a dump into statements and lays them out in phases. Everything is decided on parse trees, nothing by patterns over SQL. Throws
 * `dump-unreadable` where the parser does not know the text.
 */
export async function planSchema(dumpText: string, options: PlanOptions = {}): Promise<SchemaPlan> {
  const { entries, relations, lackingTablespaces } = await readEntries(dumpText, options.tablespaces ?? new Set());
  const { kept, leftOut } = leaveOut(entries, relations, options);
  const layout = new Layout(relations);
  // pg_dump moves views and functions that depend on keys behind them: what comes after the first statement that needs rows or keys stays there.
  let behindData = false;
  for (const entry of kept) {
    if (entry.step === 'index' || entry.step === 'constraint' || entry.step === 'attach' || (entry.step === 'post' && !isEarly(entry))) behindData = true;
    layout.add(entry.tag === 'CreateStmt' && entry.relation !== undefined ? { ...entry, sql: `${entry.sql}${dropColumnsSql(options.columnsOut, entry.relation)}` } : entry, behindData);
  }
  return { ...layout.plan(options.refresh ?? []), leftOut, lackingTablespaces };
}

/** ALTER TABLE … FORCE ROW LEVEL SECURITY and REPLICA IDENTITY FULL stand before the data in a dump, beside their table. */
function isEarly(entry: Entry): boolean {
  return entry.tag === 'AlterTableStmt' || entry.tag === 'AlterDomainStmt';
}

async function readEntries(dumpText: string, tablespaces: ReadonlySet<string>): Promise<{ entries: Entry[]; relations: Relations; lackingTablespaces: string[] }> {
  const entries: Entry[] = [];
  const kinds = new Map<string, PlannedRelation['kind']>();
  const partitionOf = new Map<string, string>();
  const owners = new Map<string, string>();
  const children = new Set<string>();
  const lacking = new Set<string>();
  let accessMethod = 'heap';
  let space = '';
  for await (const { sql, node } of cutStatements(dumpText)) {
    if ('VariableSetStmt' in node && node.VariableSetStmt.name === 'default_table_access_method') accessMethod = constantOf(node.VariableSetStmt.args?.[0]) ?? 'heap';
    if ('VariableSetStmt' in node && node.VariableSetStmt.name === 'default_tablespace') space = constantOf(node.VariableSetStmt.args?.[0]) ?? '';
    const classified = classify(node);
    if (classified.step === 'skip') continue;
    hideSecrets(node);
    const { relation, table } = classified;
    const kind = relationKind(node);
    if (kind && relation) kinds.set(relation, kind);
    if (relation && 'CreateStmt' in node && (node.CreateStmt.inhRelations ?? []).length > 0) children.add(relation);
    if (table && relation && relation !== relationKey(table.schema, table.name)) owners.set(relation, relationKey(table.schema, table.name));
    // The index of a key has the key's name.
    const constraint = classified.step === 'constraint' ? addedConstraint(node) : undefined;
    if (table && constraint?.conname !== undefined && constraint.contype !== 'CONSTR_FOREIGN') owners.set(relationKey(table.schema, constraint.conname), relationKey(table.schema, table.name));
    if ('AlterTableStmt' in node && classified.step === 'place') {
      const child = attachedPartition(node);
      if (child && relation) partitionOf.set(child, relation);
    }
    const ownedBy = sequenceOwner(node);
    if (ownedBy && relation) owners.set(relation, ownedBy);
    const storedElsewhere = accessMethod !== 'heap' && ((kind === 'table' && 'CreateStmt' in node) || kind === 'materialized view');
    const text = storedElsewhere ? `set local default_table_access_method = ${quoteIdent(accessMethod)}; ${sql}; set local default_table_access_method to default` : sql;
    const stored = space !== '' && ('CreateStmt' in node || kind === 'materialized view' || 'IndexStmt' in node || (constraint !== undefined && constraint.contype !== 'CONSTR_FOREIGN'));
    if (stored && !tablespaces.has(space)) lacking.add(space);
    const tablespace = stored && tablespaces.has(space) ? space : undefined;
    entries.push({ ...classified, sql: inTablespace(text, tablespace), tablespace, tag: Object.keys(node)[0]!, constraint, ownedBy, drop: dropSql(node), references: referencesOf(node), owner: table ? relationKey(table.schema, table.name) : relation });
  }
  // Indexes, statistics objects and owned sequences are known by their own name: what is said about them belongs to their table.
  for (const entry of entries) {
    for (let next = entry.owner === undefined ? undefined : owners.get(entry.owner); next !== undefined && next !== entry.owner; next = owners.get(next)) entry.owner = next;
  }
  return { entries, relations: { kinds, partitionOf, children, owners }, lackingTablespaces: [...lacking] };
}

/** pg_dump sets the tablespace for the statements that follow; here each has its own, since they run in another order and on several sessions. */
function inTablespace(sql: string, tablespace: string | undefined): string {
  return tablespace === undefined ? sql : `set local default_tablespace = ${quoteIdent(tablespace)}; ${sql}; set local default_tablespace to default`;
}

function relationKind(node: Node): PlannedRelation['kind'] | undefined {
  if ('CreateStmt' in node) return node.CreateStmt.partspec ? 'partitioned table' : 'table';
  if ('CreateForeignTableStmt' in node) return 'foreign table';
  if ('ViewStmt' in node) return 'view';
  if ('CreateTableAsStmt' in node) return 'materialized view';
  return 'CreateSeqStmt' in node ? 'sequence' : undefined;
}

function attachedPartition(node: Node): string | undefined {
  const command = 'AlterTableStmt' in node ? node.AlterTableStmt.cmds?.[0] : undefined;
  const def = command && 'AlterTableCmd' in command && command.AlterTableCmd.subtype === 'AT_AttachPartition' ? command.AlterTableCmd.def : undefined;
  const name = def && 'PartitionCmd' in def ? def.PartitionCmd.name : undefined;
  return name ? relationKey(name.schemaname ?? '', name.relname ?? '') : undefined;
}

/** Of ALTER TABLE … ADD CONSTRAINT. */
function addedConstraint(node: Node): Constraint | undefined {
  const command = 'AlterTableStmt' in node ? node.AlterTableStmt.cmds?.[0] : undefined;
  const def = command && 'AlterTableCmd' in command ? command.AlterTableCmd.def : undefined;
  return def && 'Constraint' in def ? def.Constraint : undefined;
}

function sequenceOwner(node: Node): string | undefined {
  if (!('AlterSeqStmt' in node)) return undefined;
  for (const option of node.AlterSeqStmt.options ?? []) {
    if (!('DefElem' in option) || option.DefElem.defname !== 'owned_by') continue;
    const { arg } = option.DefElem;
    const parts = arg && 'List' in arg ? stringsOf(arg.List.items) : [];
    if (parts.length >= 3) return relationKey(parts[0]!, parts[1]!);
  }
  return undefined;
}

function constantOf(node: Node | undefined): string | undefined {
  return node && 'A_Const' in node ? node.A_Const.sval?.sval : undefined;
}

/** A dump holds the passwords of user mappings in clear text; no error may show them [hard case 30]. */
function hideSecrets(node: Node): void {
  const options = 'CreateUserMappingStmt' in node ? node.CreateUserMappingStmt.options : 'CreateForeignServerStmt' in node ? node.CreateForeignServerStmt.options : undefined;
  for (const option of options ?? []) {
    if (!('DefElem' in option) || option.DefElem.defname === 'user' || !option.DefElem.arg || !('String' in option.DefElem.arg)) continue;
    if ('CreateUserMappingStmt' in node || /pass|secret|key|token/i.test(option.DefElem.defname ?? '')) rememberSecret(option.DefElem.arg.String.sval);
  }
}

/** The line of the ledger for a statement: by name where it makes an object, so that a dump that is worded differently finds it; else by its text. */
function ledgerKey(object: SchemaObject, creates: boolean, sql: string): string {
  const name = `${object.kind} ${object.schema === undefined ? '' : `${quoteIdent(object.schema)}.`}${quoteIdent(object.name)}`;
  return creates ? name : `${name} ${createHash('sha256').update(sql).digest('hex').slice(0, 16)}`;
}

class Layout {
  readonly #relations: Relations;
  readonly #preData: Statement[] = [];
  readonly #indexes: IndexStatement[] = [];
  readonly #attach: Statement[] = [];
  readonly #foreignKeys: ForeignKeyStatement[] = [];
  readonly #post: Statement[] = [];
  readonly #privileges: Statement[] = [];
  readonly #comments: Statement[] = [];
  readonly #eventTriggers: Statement[] = [];
  /** What waits for a matview's refresh: its indexes, and what names these. */
  readonly #ofMatview = new Map<string, Statement[]>();
  readonly #planned: PlannedRelation[] = [];

  constructor(relations: Relations) {
    this.#relations = relations;
  }

  add(entry: Entry, behindData: boolean): void {
    const kind = entry.creates && entry.relation ? this.#relations.kinds.get(entry.relation) : undefined;
    if (kind && entry.tag !== 'AlterTableStmt') this.#planned.push({ ...tableFromKey(entry.relation!), kind });
    switch (entry.step) {
      case 'place': return void (behindData ? this.#post.push(this.#statement(entry, 'post-data')) : this.#preData.push(this.#statement(entry, 'pre-data')));
      case 'attach': return void this.#attach.push(this.#statement(entry, 'attach'));
      case 'privilege': return void this.#privileges.push(this.#statement(entry, 'post-data'));
      case 'comment': return void this.#comments.push(this.#statement(entry, 'post-data'));
      case 'event-trigger': return void this.#eventTriggers.push(this.#statement(entry, 'post-data'));
      case 'index': return this.#index(entry);
      case 'constraint': return this.#constraint(entry);
      case 'post': {
        const ofIndex = entry.owner !== undefined && this.#relations.kinds.get(entry.owner) === 'materialized view';
        return void (ofIndex ? this.#behindRefresh(entry.owner!) : this.#post).push(this.#statement(entry, 'post-data'));
      }
      case 'skip':
      case 'left-out':
    }
  }

  plan(refresh: readonly TableRef[]): Omit<SchemaPlan, 'leftOut' | 'lackingTablespaces'> {
    const refreshed: Statement[] = [];
    const known = new Set(this.#planned.filter((relation) => relation.kind === 'materialized view').map(tableKey));
    for (const view of refresh) {
      if (!known.has(tableKey(view))) continue;
      // It runs as the view's owner, to whom a forced policy applies as it did on the source; `row_security = off`, as in all our sessions, would make that an error.
      const sql = `set local row_security = on; refresh materialized view ${qualifiedName(view.schema, view.name)}`;
      const object = { kind: 'rows of materialized view', schema: view.schema, name: view.name };
      refreshed.push({ key: ledgerKey(object, true, sql), phase: 'post-data', sql, object, table: view, tolerate: 'unpopulated' }, ...this.#take(tableKey(view)));
    }
    const unpopulated = [...this.#ofMatview.keys()].flatMap((key) => this.#take(key));
    return {
      preData: this.#preData, indexes: this.#indexes, attach: this.#attach, foreignKeys: this.#foreignKeys, relations: this.#planned,
      postData: [...this.#post, ...this.#privileges, ...refreshed, ...unpopulated, ...this.#comments, ...this.#eventTriggers],
    };
  }

  #take(key: string): Statement[] {
    const statements = this.#ofMatview.get(key) ?? [];
    this.#ofMatview.delete(key);
    return statements;
  }

  #behindRefresh(key: string): Statement[] {
    const list = this.#ofMatview.get(key) ?? [];
    this.#ofMatview.set(key, list);
    return list;
  }

  #statement(entry: Entry, phase: SchemaPhase): Statement {
    const table = entry.owner !== undefined && this.#relations.kinds.has(entry.owner) ? tableFromKey(entry.owner) : undefined;
    return { key: ledgerKey(entry.object, entry.creates, entry.sql), phase, sql: entry.sql, object: entry.object, table, tolerate: entry.tolerate, drop: entry.drop };
  }

  #index(entry: Entry): void {
    const kind = this.#relations.kinds.get(entry.owner ?? '');
    if (kind === 'partitioned table') this.#attach.push(this.#statement(entry, 'attach'));
    else if (kind === 'materialized view') this.#behindRefresh(entry.owner!).push(this.#statement(entry, 'post-data'));
    else this.#indexes.push({ ...this.#statement(entry, 'indexes'), phase: 'indexes', table: entry.table!, name: entry.object.name, lock: 'share', constraint: undefined });
  }

  #constraint(entry: Entry): void {
    const { constraint } = entry;
    const table = entry.table!;
    const name = constraint?.conname ?? '';
    const partitioned = this.#relations.kinds.get(entry.owner ?? '') === 'partitioned table';
    if (constraint?.contype === 'CONSTR_FOREIGN') {
      const statement = this.#statement(entry, 'foreign-keys');
      const referenced = { schema: constraint.pktable?.schemaname ?? '', name: constraint.pktable?.relname ?? '' };
      const enforced = constraint.is_enforced !== false;
      const inSteps = partitioned || constraint.skip_validation || !enforced ? undefined : { add: `${entry.sql} not valid`, validate: `alter table ${qualifiedName(table.schema, table.name)} validate constraint ${quoteIdent(name)}` };
      this.#foreignKeys.push({ ...statement, phase: 'foreign-keys', table, name, referenced, inSteps });
      return;
    }
    if (partitioned) return void this.#attach.push(this.#statement(entry, 'attach'));
    const base = { ...this.#statement(entry, 'indexes'), phase: 'indexes' as const, table, name };
    // PostgreSQL 18 marks an inherited NOT NULL as the child's own where a primary key is made of an index.
    const split = constraint && !(constraint.contype === 'CONSTR_PRIMARY' && this.#relations.children.has(entry.owner ?? '')) ? keyAsIndex(table, constraint) : undefined;
    if (!split) return void this.#indexes.push({ ...base, lock: 'exclusive', constraint: undefined });
    const object = { kind: 'index', schema: table.schema, name };
    this.#indexes.push({ ...base, key: ledgerKey(object, true, split.index), sql: inTablespace(split.index, entry.tablespace), object, lock: 'share', constraint: { ...this.#statement(entry, 'indexes'), sql: split.constraint } });
  }
}

/** For people: `table shop.orders`, `extension hstore`. */
export function describeObject(object: SchemaObject): string {
  return `${object.kind} ${object.schema === undefined ? object.name : displayName(object.schema, object.name)}`.trim();
}
