import type { Node, TypeName } from 'libpg-query';
import { quoteIdent } from '../pg/identifiers.ts';
import { stringsOf } from './references.ts';

const names = (parts: readonly string[]): string => parts.map(quoteIdent).join('.');

function typeSql(type: TypeName | undefined): string {
  return type === undefined ? 'none' : `${names(stringsOf(type.names))}${(type.arrayBounds ?? []).map(() => '[]').join('')}`;
}

function asType(node: Node | undefined): TypeName | undefined {
  return node && 'TypeName' in node ? node.TypeName : undefined;
}

/** Words of DROP for what CREATE … (DefineStmt) makes by name alone. */
const defined: Readonly<Record<string, string>> = {
  OBJECT_TYPE: 'type', OBJECT_COLLATION: 'collation', OBJECT_TSCONFIGURATION: 'text search configuration', OBJECT_TSDICTIONARY: 'text search dictionary', OBJECT_TSPARSER: 'text search parser', OBJECT_TSTEMPLATE: 'text search template',
};

/**
 * DROP … IF EXISTS … CASCADE for what a statement of a dump makes, except for relations (their kind on the target may be another), schemas (they may hold what is not
 * ours) and extensions (made only where missing). Undefined for these and for everything that goes with its table.
 */
export function dropSql(node: Node): string | undefined {
  const drop = (what: string, name: string) => `drop ${what} if exists ${name} cascade`;
  if ('CreateFunctionStmt' in node) {
    const { funcname, parameters = [] } = node.CreateFunctionStmt;
    const inputs = parameters.flatMap((item) => ('FunctionParameter' in item && item.FunctionParameter.mode !== 'FUNC_PARAM_TABLE' && item.FunctionParameter.mode !== 'FUNC_PARAM_OUT' ? [typeSql(item.FunctionParameter.argType)] : []));
    return drop('routine', `${names(stringsOf(funcname))}(${inputs.join(', ')})`);
  }
  if ('CreateEnumStmt' in node) return drop('type', names(stringsOf(node.CreateEnumStmt.typeName)));
  if ('CreateRangeStmt' in node) return drop('type', names(stringsOf(node.CreateRangeStmt.typeName)));
  if ('CompositeTypeStmt' in node) return drop('type', names([node.CompositeTypeStmt.typevar?.schemaname ?? '', node.CompositeTypeStmt.typevar?.relname ?? '']));
  if ('CreateDomainStmt' in node) return drop('domain', names(stringsOf(node.CreateDomainStmt.domainname)));
  if ('CreateConversionStmt' in node) return drop('conversion', names(stringsOf(node.CreateConversionStmt.conversion_name)));
  if ('CreateFdwStmt' in node) return drop('foreign data wrapper', quoteIdent(node.CreateFdwStmt.fdwname ?? ''));
  if ('CreateForeignServerStmt' in node) return drop('server', quoteIdent(node.CreateForeignServerStmt.servername ?? ''));
  if ('CreateEventTrigStmt' in node) return drop('event trigger', quoteIdent(node.CreateEventTrigStmt.trigname ?? ''));
  if ('CreateAmStmt' in node) return drop('access method', quoteIdent(node.CreateAmStmt.amname ?? ''));
  if ('CreateOpFamilyStmt' in node) return drop('operator family', `${names(stringsOf(node.CreateOpFamilyStmt.opfamilyname))} using ${quoteIdent(node.CreateOpFamilyStmt.amname ?? '')}`);
  if ('CreateCastStmt' in node) return drop('cast', `(${typeSql(node.CreateCastStmt.sourcetype)} as ${typeSql(node.CreateCastStmt.targettype)})`);
  if ('CreateTransformStmt' in node) return drop('transform', `for ${typeSql(node.CreateTransformStmt.type_name)} language ${quoteIdent(node.CreateTransformStmt.lang ?? '')}`);
  if ('DefineStmt' in node) {
    const { kind, defnames, definition = [], args } = node.DefineStmt;
    const word = defined[kind ?? ''];
    if (word) return drop(word, names(stringsOf(defnames)));
    if (kind === 'OBJECT_OPERATOR') {
      const side = (name: string) => definition.flatMap((item) => ('DefElem' in item && item.DefElem.defname === name ? [typeSql(asType(item.DefElem.arg))] : []))[0] ?? 'none';
      const parts = stringsOf(defnames);
      return drop('operator', `${parts.slice(0, -1).map(quoteIdent).join('.')}${parts.length > 1 ? '.' : ''}${parts.at(-1)} (${side('leftarg')}, ${side('rightarg')})`);
    }
    if (kind === 'OBJECT_AGGREGATE') {
      // The second item is the number of direct arguments, -1 where all are plain ones. DROP ROUTINE takes them all the same way.
      const list = args?.[0] && 'List' in args[0] ? (args[0].List.items ?? []) : [];
      const types = list.flatMap((item) => ('FunctionParameter' in item ? [typeSql(item.FunctionParameter.argType)] : []));
      return drop('routine', `${names(stringsOf(defnames))}(${types.join(', ')})`);
    }
  }
  return undefined;
}
