import type { ConnectionSpec } from '../pg/conninfo.ts';
import { qualifiedName, quoteIdent } from '../pg/identifiers.ts';
import { ServerError } from '../pg/server-error.ts';
import { backend, WireConnection } from '../pg/wire-connection.ts';
import { FrameHopper } from './relay.ts';
import type { TablePlan } from './table-plan.ts';

export interface ReadSample {
  /** Bytes of the table on disk that were read. */
  readonly tableBytes: number;
  readonly elapsedMs: number;
}

/** The most that a sample reads. */
const sampleBytes = 64 * 1024 * 1024;

/**
 * Reads the first blocks of the largest tables with COPY and throws the rows away: how fast the source and the network give them. Writes nothing anywhere. Reads at most 64 MB,
 * for at most `budgetMs`.
 */
export async function sampleRead(source: ConnectionSpec, tables: readonly TablePlan[], options: { readonly job: string; readonly budgetMs: number; readonly signal: AbortSignal }): Promise<ReadSample> {
  await using connection = await WireConnection.open(source, { role: 'sample', job: options.job, side: 'the source', signal: options.signal });
  const largest = [...tables].filter((t) => t.blocks > 0 && t.columns.length > 0).sort((a, b) => b.bytes - a.bytes);
  let tableBytes = 0;
  const began = performance.now();
  for (const table of largest) {
    if (tableBytes >= sampleBytes || performance.now() - began >= options.budgetMs) break;
    const perBlock = table.bytes / table.blocks;
    // Pieces of 8 MB, so that the budget is looked at between them.
    const blocks = Math.max(1, Math.min(table.blocks, Math.ceil((8 * 1024 * 1024) / perBlock)));
    for (let from = 0; from < table.blocks; from += blocks) {
      if (tableBytes >= sampleBytes || performance.now() - began >= options.budgetMs) break;
      const condition = `ctid >= '(${from},0)'::pg_catalog.tid and ctid < '(${from + blocks},0)'::pg_catalog.tid`;
      await discardCopy(connection, `copy (select ${table.columns.map(quoteIdent).join(', ')} from only ${qualifiedName(table.schema, table.name)} where ${condition}) to stdout with (format ${table.binary ? 'binary' : 'text'})`);
      tableBytes += Math.min(blocks, table.blocks - from) * perBlock;
    }
  }
  return { tableBytes: Math.round(tableBytes), elapsedMs: performance.now() - began };
}

function discardCopy(connection: WireConnection, sql: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const hopper = new FrameHopper();
    let error: ServerError | undefined;
    connection.begin((type, body) => {
      if (type === backend.copyOut) {
        connection.takeOver((chunk) => {
          const end = hopper.hop(chunk);
          if (end < chunk.length) connection.giveBack(chunk.subarray(end));
        });
      } else if (type === backend.error) error ??= ServerError.parse(body);
      else if (type === backend.readyForQuery) {
        connection.finish();
        if (error) reject(error);
        else resolve();
      }
    }, reject);
    connection.sendQuery(sql);
  });
}
