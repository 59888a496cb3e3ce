import { parseConfig } from '../../src/core/config.ts';
import { createLog, type Log } from '../../src/core/log.ts';
import { resolveFanoutConfig, type FanoutConfig } from '../../src/fanout/config.ts';
import type { FanoutService } from '../../src/fanout/service.ts';
import { waitFor, type TestDatabase } from './servers.ts';

export interface FanoutShape {
  readonly tables: readonly string[];
  readonly targets: readonly Record<string, unknown>[];
  readonly settings?: Readonly<Record<string, unknown>>;
}

/** A configuration as the service reads it from a file, with short intervals. */
export function fanoutConfig(publication: string, sourceUri: string, shape: FanoutShape): FanoutConfig {
  return resolveFanoutConfig(parseConfig(JSON.stringify({ replication: {
    publication_name: publication, source: { uri: sourceUri }, targets: shape.targets, tables: shape.tables, settings: { wait_interval_seconds: 0.2, reconcile_interval: '1s', health_port: 0, ...shape.settings },
  } }), 'test.json', 'json'));
}

export const silentLog = (): Promise<Log> => createLog({ level: 'error', format: 'json', stream: { write: () => undefined } });

/** Number of rows and a checksum that does not depend on their order. */
export async function contents(database: TestDatabase, table: string): Promise<string> {
  return (await database.query<{ d: string }>(`select count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)), 0) as d from ${table} t`))[0]!.d;
}

/** Waits until a table holds the same rows on both sides; nobody may be writing. */
export async function equalRows(source: TestDatabase, target: TestDatabase, table: string, there = table): Promise<void> {
  await waitFor(`${there} to be equal`, async () => (await contents(source, table)) === (await contents(target, there)));
}

/** Waits until every target streams all of `tables`; what stands against it is in the failure. */
export async function allStream(service: FanoutService, tables?: number, timeoutMs = 90_000): Promise<void> {
  try {
    await waitFor('all targets to stream', () => service.health().targets.every((t) => t.state === 'streaming' && (tables === undefined || t.tables === tables)), timeoutMs);
  } catch (error) {
    throw new Error(service.health().targets.map((t) => `${t.name}: ${t.state}, ${t.tablesReady} of ${t.tables} tables${t.lastError ? `, ${t.lastError.message}` : ''}`).join('\n'), { cause: error });
  }
}
