import type { AlterTableCmd, AlterTableStmt, Node, ObjectType, RangeVar } from 'libpg-query';
import type { TableRef } from '../core/tables.ts';
import { relationKey, stringsOf } from './references.ts';
import type { SchemaObject, Tolerance } from './plan.ts';

/**
 * Where a statement belongs, before the plan is laid out. `skip`: settings of the dump itself. `place`: before or behind the data as the dump has it.
 * `post`: behind the data, and everything that the dump has behind it too (pg_dump moves what depends on keys there).
 */
export type Step = 'skip' | 'place' | 'index' | 'constraint' | 'attach' | 'post' | 'privilege' | 'comment' | 'event-trigger' | 'left-out';

export interface Classified {
  readonly step: Step;
  readonly object: SchemaObject;
  /** The statement brings the object into being; else it changes one. */
  readonly creates: boolean;
  /** Key of the relation (index, statistics object, type) that it makes or changes; planning finds the table of it. */
  readonly relation?: string;
  /** Key of the function that it makes. */
  readonly makesFunction?: string;
  /** The table named in the statement itself. */
  readonly table?: TableRef;
  readonly tolerate?: Tolerance;
  /** Columns of the relation that the statement is about, where it is about columns alone. */
  readonly columns?: readonly string[];
  /** A part of the table that the statement names: ALTER TABLE … CLUSTER ON, ENABLE TRIGGER. */
  readonly names?: { readonly kind: 'index' | 'trigger' | 'rule'; readonly name: string };
}

const words: Partial<Record<ObjectType, string>> = {
  OBJECT_MATVIEW: 'materialized view', OBJECT_TABCONSTRAINT: 'constraint', OBJECT_DOMCONSTRAINT: 'domain constraint', OBJECT_STATISTIC_EXT: 'statistics', OBJECT_OPCLASS: 'operator class', OBJECT_OPFAMILY: 'operator family', OBJECT_FDW: 'foreign data wrapper',
  OBJECT_FOREIGN_SERVER: 'server', OBJECT_FOREIGN_TABLE: 'foreign table', OBJECT_TSCONFIGURATION: 'text search configuration', OBJECT_TSDICTIONARY: 'text search dictionary', OBJECT_TSPARSER: 'text search parser', OBJECT_TSTEMPLATE: 'text search template',
};

/** `OBJECT_EVENT_TRIGGER` is `event trigger`. */
export function objectWord(type: ObjectType | undefined): string {
  return type === undefined ? 'object' : (words[type] ?? type.replace(/^OBJECT_/, '').replaceAll('_', ' ').toLowerCase());
}

function typeText(type: unknown): string {
  const { names, arrayBounds } = (type ?? {}) as { names?: unknown; arrayBounds?: readonly unknown[] };
  const parts = stringsOf(names);
  return `${(parts[0] === 'pg_catalog' ? parts.slice(1) : parts).join('.')}${(arrayBounds ?? []).map(() => '[]').join('')}`;
}

/** The parts of an object's name as statements about existing objects give it, and what stands behind it in words. */
function nameParts(object: Node | undefined): { parts: string[]; suffix: string } {
  if (object === undefined) return { parts: [], suffix: '' };
  if ('String' in object) return { parts: [object.String.sval ?? ''], suffix: '' };
  if ('TypeName' in object) return { parts: stringsOf(object.TypeName.names), suffix: '' };
  if ('RangeVar' in object) return { parts: rangeParts(object.RangeVar), suffix: '' };
  if ('ObjectWithArgs' in object) {
    const args = (object.ObjectWithArgs.objargs ?? []).map((arg) => ('TypeName' in arg ? typeText(arg.TypeName) : ''));
    return { parts: stringsOf(object.ObjectWithArgs.objname), suffix: `(${args.join(', ')})` };
  }
  if ('List' in object) {
    const items = object.List.items ?? [];
    const first = items[0];
    if (first && 'TypeName' in first) return { parts: stringsOf(first.TypeName.names), suffix: ` ${items.slice(1).map((item) => nameParts(item).parts.join('.')).join(' ')}`.trimEnd() };
    return { parts: stringsOf(items), suffix: '' };
  }
  return { parts: [], suffix: '' };
}

function rangeParts(range: RangeVar | undefined): string[] {
  return [...(range?.schemaname === undefined ? [] : [range.schemaname]), range?.relname ?? ''];
}

function objectOf(kind: string, parts: readonly string[], suffix = ''): SchemaObject {
  return parts.length > 1 ? { kind, schema: parts[0], name: `${parts.slice(1).join('.')}${suffix}` } : { kind, schema: undefined, name: `${parts[0] ?? ''}${suffix}` };
}

function tableOf(range: RangeVar | undefined): TableRef {
  return { schema: range?.schemaname ?? '', name: range?.relname ?? '' };
}

function keyOf(parts: readonly string[]): string {
  return relationKey(parts[0] ?? '', parts[1] ?? '');
}

const relationTypes = new Set<ObjectType>(['OBJECT_TABLE', 'OBJECT_VIEW', 'OBJECT_MATVIEW', 'OBJECT_SEQUENCE', 'OBJECT_FOREIGN_TABLE', 'OBJECT_INDEX', 'OBJECT_STATISTIC_EXT', 'OBJECT_TYPE', 'OBJECT_DOMAIN']);
const ofRelationTypes = new Set<ObjectType>(['OBJECT_COLUMN', 'OBJECT_TABCONSTRAINT', 'OBJECT_TRIGGER', 'OBJECT_RULE', 'OBJECT_POLICY']);

/** For statements about an existing object: COMMENT, SECURITY LABEL, OWNER TO, GRANT. */
function about(word: string, type: ObjectType | undefined, object: Node | undefined, step: Step, tolerate?: Tolerance): Classified {
  const { parts, suffix } = nameParts(object);
  const known = type !== undefined && (relationTypes.has(type) ? keyOf(parts) : ofRelationTypes.has(type) && parts.length > 2 ? keyOf(parts) : undefined);
  const column = type === 'OBJECT_COLUMN' ? parts[2] : undefined;
  return { step, object: objectOf(`${word} ${objectWord(type)}`, parts, suffix), creates: false, ...(known ? { relation: known } : {}), ...(tolerate ? { tolerate } : {}), ...(column === undefined ? {} : { columns: [column] }) };
}

const postCommands = new Set([
  'AT_ClusterOn', 'AT_ReplicaIdentity', 'AT_EnableTrig', 'AT_EnableAlwaysTrig', 'AT_EnableReplicaTrig', 'AT_DisableTrig', 'AT_EnableRule', 'AT_EnableAlwaysRule', 'AT_EnableReplicaRule', 'AT_DisableRule', 'AT_EnableRowSecurity', 'AT_ForceRowSecurity',
]);
/** ALTER TABLE … ALTER COLUMN, where `name` of the command is the column's. */
const columnCommands = new Set([
  'AT_ColumnDefault', 'AT_SetNotNull', 'AT_DropNotNull', 'AT_AddIdentity', 'AT_SetIdentity', 'AT_SetStatistics', 'AT_SetOptions', 'AT_ResetOptions', 'AT_SetStorage', 'AT_SetCompression', 'AT_AlterColumnGenericOptions', 'AT_SetExpression', 'AT_DropExpression', 'AT_AlterColumnType',
]);

/** Which part of its table a command names. */
function namedPart(command: AlterTableCmd | undefined): Classified['names'] {
  const { subtype = '', name, def } = command ?? {};
  if (subtype === 'AT_ReplicaIdentity') return def && 'ReplicaIdentityStmt' in def && def.ReplicaIdentityStmt.name !== undefined ? { kind: 'index', name: def.ReplicaIdentityStmt.name } : undefined;
  if (name === undefined) return undefined;
  if (subtype === 'AT_ClusterOn') return { kind: 'index', name };
  if (/^AT_(Enable|Disable)\w*Trig$/.test(subtype)) return { kind: 'trigger', name };
  return /^AT_(Enable|Disable)\w*Rule$/.test(subtype) ? { kind: 'rule', name } : undefined;
}

const keyTypes: Readonly<Record<string, string>> = { CONSTR_PRIMARY: 'primary key', CONSTR_UNIQUE: 'unique constraint', CONSTR_EXCLUSION: 'exclusion constraint', CONSTR_FOREIGN: 'foreign key' };

function alterTable(statement: AlterTableStmt): Classified {
  const parts = rangeParts(statement.relation);
  const word = objectWord(statement.objtype);
  const relation = keyOf(parts);
  const base = { object: objectOf(word, parts), creates: false, relation } as const;
  const command = statement.cmds?.[0] && 'AlterTableCmd' in statement.cmds[0] ? statement.cmds[0].AlterTableCmd : undefined;
  const subtype = command?.subtype;
  if (subtype === 'AT_ChangeOwner') return { ...base, step: 'place', object: objectOf(`owner of ${word}`, parts), tolerate: 'privilege' };
  if (statement.objtype === 'OBJECT_INDEX') return { ...base, step: subtype === 'AT_AttachPartition' ? 'attach' : 'post' };
  if (subtype === 'AT_AddConstraint' && command?.def && 'Constraint' in command.def) {
    const { contype, conname, skip_validation: skipsValidation } = command.def.Constraint;
    const kind = keyTypes[contype ?? ''];
    const object = objectOf(kind ?? 'constraint', [parts[0] ?? '', `${parts[1]}.${conname}`]);
    if (kind) return { ...base, step: 'constraint', object, creates: true, table: tableOf(statement.relation) };
    // Rows of the source may break a check that was never validated.
    return { ...base, step: skipsValidation ? 'post' : 'place', object, creates: true };
  }
  const names = namedPart(command);
  return {
    ...base, step: subtype !== undefined && postCommands.has(subtype) ? 'post' : 'place', ...(subtype !== undefined && columnCommands.has(subtype) && command?.name !== undefined ? { columns: [command.name] } : {}), ...(names ? { names } : {}),
  };
}

/** Says what a statement of a dump is and where it belongs. */
export function classify(node: Node): Classified {
  if ('VariableSetStmt' in node || 'SelectStmt' in node) return { step: 'skip', object: objectOf('setting', ['']), creates: false };
  return relationStatement(node) ?? programStatement(node) ?? otherStatement(node);
}

function relationStatement(node: Node): Classified | undefined {
  const make = (kind: string, range: RangeVar | undefined): Classified => ({ step: 'place', object: objectOf(kind, rangeParts(range)), creates: true, relation: keyOf(rangeParts(range)) });
  if ('CreateStmt' in node) return make('table', node.CreateStmt.relation);
  if ('CreateForeignTableStmt' in node) return make('foreign table', node.CreateForeignTableStmt.base?.relation);
  if ('ViewStmt' in node) return { ...make('view', node.ViewStmt.view), creates: !node.ViewStmt.replace };
  if ('CreateTableAsStmt' in node) return make(node.CreateTableAsStmt.objtype === 'OBJECT_MATVIEW' ? 'materialized view' : 'table', node.CreateTableAsStmt.into?.rel);
  if ('CreateSeqStmt' in node) return make('sequence', node.CreateSeqStmt.sequence);
  if ('AlterSeqStmt' in node) return { ...make('sequence', node.AlterSeqStmt.sequence), creates: false };
  if ('AlterTableStmt' in node) return alterTable(node.AlterTableStmt);
  if ('IndexStmt' in node) {
    const { relation, idxname = '' } = node.IndexStmt;
    const schema = relation?.schemaname ?? '';
    return { step: 'index', object: { kind: 'index', schema, name: idxname }, creates: true, relation: relationKey(schema, idxname), table: tableOf(relation) };
  }
  if ('CreateStatsStmt' in node) {
    const parts = stringsOf(node.CreateStatsStmt.defnames);
    const of = node.CreateStatsStmt.relations?.[0];
    return { step: 'post', object: objectOf('statistics', parts), creates: true, relation: keyOf(parts), ...(of && 'RangeVar' in of ? { table: tableOf(of.RangeVar) } : {}) };
  }
  if ('AlterStatsStmt' in node) {
    const parts = stringsOf(node.AlterStatsStmt.defnames);
    return { step: 'post', object: objectOf('statistics', parts), creates: false, relation: keyOf(parts) };
  }
  const part = (kind: string, range: RangeVar | undefined, name: string | undefined): Classified => ({
    step: 'post', object: objectOf(kind, [range?.schemaname ?? '', `${range?.relname}.${name}`]), creates: true, table: tableOf(range),
  });
  if ('RuleStmt' in node) return part('rule', node.RuleStmt.relation, node.RuleStmt.rulename);
  if ('CreateTrigStmt' in node) return part('trigger', node.CreateTrigStmt.relation, node.CreateTrigStmt.trigname);
  if ('CreatePolicyStmt' in node) return part('policy', node.CreatePolicyStmt.table, node.CreatePolicyStmt.policy_name);
  return undefined;
}

function programStatement(node: Node): Classified | undefined {
  if ('CreateFunctionStmt' in node) {
    const { funcname, parameters = [], is_procedure: procedure } = node.CreateFunctionStmt;
    const parts = stringsOf(funcname);
    // As statements about it name it: output arguments count for procedures alone.
    const inputs = parameters.flatMap((item) => {
      const mode = 'FunctionParameter' in item ? item.FunctionParameter.mode : undefined;
      return mode === undefined || mode === 'FUNC_PARAM_TABLE' || (mode === 'FUNC_PARAM_OUT' && !procedure) || !('FunctionParameter' in item) ? [] : [typeText(item.FunctionParameter.argType)];
    });
    return { step: 'place', object: objectOf(procedure ? 'procedure' : 'function', parts, `(${inputs.join(', ')})`), creates: true, makesFunction: keyOf(parts) };
  }
  const type = (names: unknown): Classified => ({ step: 'place', object: objectOf('type', stringsOf(names)), creates: true, relation: keyOf(stringsOf(names)) });
  if ('CreateEnumStmt' in node) return type(node.CreateEnumStmt.typeName);
  if ('CreateRangeStmt' in node) return type(node.CreateRangeStmt.typeName);
  if ('CompositeTypeStmt' in node) return { ...type([]), object: objectOf('type', rangeParts(node.CompositeTypeStmt.typevar)), relation: keyOf(rangeParts(node.CompositeTypeStmt.typevar)) };
  if ('CreateDomainStmt' in node) return { ...type(node.CreateDomainStmt.domainname), object: objectOf('domain', stringsOf(node.CreateDomainStmt.domainname)) };
  if ('AlterDomainStmt' in node) return { step: 'post', object: objectOf('domain constraint', stringsOf(node.AlterDomainStmt.typeName)), creates: false, relation: keyOf(stringsOf(node.AlterDomainStmt.typeName)) };
  if ('DefineStmt' in node) {
    const { kind, defnames, definition, args } = node.DefineStmt;
    const types = [...(args ?? []), ...(kind === 'OBJECT_OPERATOR' ? (definition ?? []) : [])].map((item) => ('DefElem' in item ? stringsOf((item.DefElem.arg as { TypeName?: { names?: unknown } } | undefined)?.TypeName?.names).join('.') : '')).filter((text) => text !== '');
    // A base type is defined twice: first as a shell, which has no definition.
    const word = kind === 'OBJECT_TYPE' && definition === undefined ? 'shell type' : objectWord(kind);
    const parts = stringsOf(defnames);
    const overloaded = kind === 'OBJECT_OPERATOR' || kind === 'OBJECT_AGGREGATE';
    return { step: 'place', object: objectOf(word, parts, overloaded ? `(${types.join(', ')})` : ''), creates: !overloaded, ...(kind === 'OBJECT_TYPE' ? { relation: keyOf(parts) } : {}), ...(kind === 'OBJECT_AGGREGATE' ? { makesFunction: keyOf(parts) } : {}) };
  }
  return undefined;
}

function otherStatement(node: Node): Classified {
  const place = (kind: string, name: string | undefined, creates = true, tolerate?: Tolerance): Classified => ({ step: 'place', object: objectOf(kind, [name ?? '']), creates, ...(tolerate ? { tolerate } : {}) });
  if ('CommentStmt' in node) {
    const { objtype, object } = node.CommentStmt;
    if (objtype === 'OBJECT_PUBLICATION' || objtype === 'OBJECT_SUBSCRIPTION') return { ...about('comment on', objtype, object, 'left-out') };
    return about('comment on', objtype, object, objtype === 'OBJECT_EVENT_TRIGGER' ? 'event-trigger' : 'comment', objtype === 'OBJECT_EXTENSION' ? 'extension-comment' : undefined);
  }
  if ('SecLabelStmt' in node) return about('security label on', node.SecLabelStmt.objtype, node.SecLabelStmt.object, 'comment', 'always');
  if ('AlterOwnerStmt' in node) {
    const { objectType, object } = node.AlterOwnerStmt;
    const leftOut = objectType === 'OBJECT_PUBLICATION' || objectType === 'OBJECT_SUBSCRIPTION';
    return about('owner of', objectType, object, leftOut ? 'left-out' : objectType === 'OBJECT_EVENT_TRIGGER' ? 'event-trigger' : 'place', 'privilege');
  }
  if ('GrantStmt' in node) {
    const { is_grant: grants, objtype, objects, privileges = [] } = node.GrantStmt;
    const columns = privileges.flatMap((item) => ('AccessPriv' in item ? [stringsOf(item.AccessPriv.cols)] : []));
    return { ...about(grants ? 'grant on' : 'revoke on', objtype, objects?.[0], 'privilege', 'privilege'), ...(columns.length > 0 && columns.every((names) => names.length > 0) ? { columns: columns.flat() } : {}) };
  }
  if ('AlterDefaultPrivilegesStmt' in node) return { ...place('default privileges', '', false, 'privilege'), step: 'privilege' };
  if ('CreateEventTrigStmt' in node) return { ...place('event trigger', node.CreateEventTrigStmt.trigname, true, 'privilege'), step: 'event-trigger' };
  if ('AlterEventTrigStmt' in node) return { ...place('event trigger', node.AlterEventTrigStmt.trigname, false, 'privilege'), step: 'event-trigger' };
  if ('CreatePublicationStmt' in node) return { ...place('publication', node.CreatePublicationStmt.pubname), step: 'left-out' };
  if ('AlterPublicationStmt' in node) return { ...place('publication', node.AlterPublicationStmt.pubname, false), step: 'left-out' };
  if ('CreateSubscriptionStmt' in node) return { ...place('subscription', node.CreateSubscriptionStmt.subname), step: 'left-out' };
  if ('AlterSubscriptionStmt' in node) return { ...place('subscription', node.AlterSubscriptionStmt.subname, false), step: 'left-out' };
  if ('CreateSchemaStmt' in node) return place('schema', node.CreateSchemaStmt.schemaname);
  if ('CreateExtensionStmt' in node) return place('extension', node.CreateExtensionStmt.extname);
  if ('CreateFdwStmt' in node) return place('foreign data wrapper', node.CreateFdwStmt.fdwname);
  if ('CreateForeignServerStmt' in node) return place('server', node.CreateForeignServerStmt.servername);
  if ('CreateUserMappingStmt' in node) return place('user mapping', `${node.CreateUserMappingStmt.user?.rolename ?? 'public'} on ${node.CreateUserMappingStmt.servername}`, true, 'privilege');
  if ('CreatePLangStmt' in node) return place('language', node.CreatePLangStmt.plname);
  if ('CreateAmStmt' in node) return place('access method', node.CreateAmStmt.amname);
  if ('CreateConversionStmt' in node) return { ...place('conversion', ''), object: objectOf('conversion', stringsOf(node.CreateConversionStmt.conversion_name)) };
  if ('CreateOpClassStmt' in node) return { ...place('operator class', ''), object: objectOf('operator class', stringsOf(node.CreateOpClassStmt.opclassname), ` using ${node.CreateOpClassStmt.amname}`) };
  if ('CreateOpFamilyStmt' in node) return { ...place('operator family', ''), object: objectOf('operator family', stringsOf(node.CreateOpFamilyStmt.opfamilyname), ` using ${node.CreateOpFamilyStmt.amname}`) };
  if ('AlterOpFamilyStmt' in node) return { ...place('operator family', '', false), object: objectOf('operator family', stringsOf(node.AlterOpFamilyStmt.opfamilyname), ` using ${node.AlterOpFamilyStmt.amname}`) };
  if ('CreateCastStmt' in node) return place('cast', `${typeText(node.CreateCastStmt.sourcetype)} as ${typeText(node.CreateCastStmt.targettype)}`);
  if ('CreateTransformStmt' in node) return place('transform', `${typeText(node.CreateTransformStmt.type_name)} language ${node.CreateTransformStmt.lang}`);
  if ('AlterTSConfigurationStmt' in node) return { ...place('text search configuration', '', false), object: objectOf('text search configuration', stringsOf(node.AlterTSConfigurationStmt.cfgname)) };
  return place(Object.keys(node)[0]!.replace(/Stmt$/, '').replace(/(?<=[a-z])(?=[A-Z])/g, ' ').toLowerCase(), '', false);
}
