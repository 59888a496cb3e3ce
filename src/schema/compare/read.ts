import { rememberSecret } from '../../core/redact.ts';
import type { Session } from '../../pg/session.ts';
import { objectKey, type AttributeValue, type CatalogObject, type Reader } from './model.ts';
import { databaseReader, defaultPrivilegesReader, extensionReader, foreignReaders, schemaReader, textSearchReaders } from './read-places.ts';
import { accessMethodReader, castReader, conversionReader, eventTriggerReader, languageReader, operatorClassReader, operatorFamilyReader, operatorReader, routineReader, transformReader } from './read-programs.ts';
import { columnReader, constraintReader, indexReader, policyReader, relationReader, ruleReader, sequenceReader, statisticsReader, triggerReader } from './read-relations.ts';
import { collationReader, domainConstraintReader, typeReader } from './read-types.ts';

/** A whole schema by {@link objectKey}. */
export type SchemaModel = ReadonlyMap<string, CatalogObject>;

type Row = Record<string, unknown>;

function readers(version: number): Reader[] {
  return [
    databaseReader(), schemaReader(version), extensionReader(), languageReader(), accessMethodReader(), collationReader(version), typeReader(), domainConstraintReader(), relationReader(), columnReader(version), sequenceReader(), constraintReader(), indexReader(), statisticsReader(), triggerReader(), ruleReader(),
    policyReader(), routineReader(), operatorReader(), operatorClassReader(), operatorFamilyReader(), castReader(), conversionReader(), transformReader(), ...textSearchReaders(), ...foreignReaders(), eventTriggerReader(), defaultPrivilegesReader(),
  ];
}

/** Reads all of a database's schema from its catalogs, in one snapshot: not what extensions made, not the system's, not ours, no publications and subscriptions. PostgreSQL 14 to 18. */
export async function readSchema(session: Session): Promise<SchemaModel> {
  const objects = new Map<string, CatalogObject>();
  await session.transaction(async () => {
    for (const reader of readers(session.serverVersion)) {
      for (const row of await session.query<Row>(reader.sql)) {
        const object = fromRow(row, reader.kind);
        objects.set(objectKey(object), object);
      }
    }
  }, 'begin isolation level repeatable read read only');
  return objects;
}

function fromRow(row: Row, readerKind: string | undefined): CatalogObject {
  const { kind, schema, name, table_schema: tableSchema, table_name: tableName, ...rest } = row;
  const attributes: Record<string, AttributeValue> = {};
  for (const [attribute, value] of Object.entries(rest)) {
    // Nothing and an empty list mean the same everywhere here.
    attributes[attribute] = value === undefined || (Array.isArray(value) && value.length === 0) ? null : (value as AttributeValue);
    if (attribute === 'foreign options') hideOptions(value);
  }
  return {
    kind: readerKind ?? String(kind), schema: typeof schema === 'string' ? schema : undefined, name: String(name),
    table: typeof tableSchema === 'string' && typeof tableName === 'string' ? { schema: tableSchema, name: tableName } : undefined, attributes,
  };
}

/** Servers are sometimes given a password as an option; no report shows it. */
function hideOptions(options: unknown): void {
  if (!Array.isArray(options)) return;
  for (const option of options as readonly unknown[]) {
    const match = /^[^=]*(?:pass|secret|key|token)[^=]*=(.*)$/is.exec(String(option));
    if (match) rememberSecret(match[1]);
  }
}
