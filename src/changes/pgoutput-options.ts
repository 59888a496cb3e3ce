import { publicationNames } from '../pg/replication-session.ts';

export interface StreamOptions {
  readonly publications: readonly string[];
  /** Values in binary form where a type has one (14 and newer). Binary arrays, composites and ranges carry type oids of the source. */
  readonly binary?: boolean;
  /** Transactions in progress are streamed (14 and newer; parallel: with the positions of aborts, 16 and newer). */
  readonly streaming?: 'off' | 'on' | 'parallel';
  /** PREPARE TRANSACTION is sent when it happens; the slot must have been made so (15 and newer). */
  readonly twoPhase?: boolean;
  /** none: what was itself replicated to the source is left out, by the server from 16 on, by us before. */
  readonly origin?: 'any' | 'none';
}

/** Options of pgoutput for a server, in the lowest protocol version that has what is asked for. Source: documentation, "Logical Streaming Replication Parameters". */
export function pgoutputOptions(serverVersion: number, options: StreamOptions): Record<string, string> {
  const filtersOrigins = serverVersion >= 160_000;
  // Which transactions of a stream were replicated is known before their end only where the server tells them apart.
  const mayStream = serverVersion >= 140_000 && (options.origin !== 'none' || filtersOrigins);
  const streaming = options.streaming === undefined || !mayStream ? 'off' : options.streaming === 'parallel' && serverVersion < 160_000 ? 'on' : options.streaming;
  const twoPhase = options.twoPhase === true && serverVersion >= 150_000;
  return {
    proto_version: streaming === 'parallel' ? '4' : twoPhase ? '3' : streaming === 'on' ? '2' : '1',
    publication_names: publicationNames(options.publications),
    ...(serverVersion >= 140_000 ? { messages: 'true' } : {}),
    ...(options.binary && serverVersion >= 140_000 ? { binary: 'true' } : {}),
    ...(streaming === 'off' ? {} : { streaming }),
    ...(twoPhase ? { two_phase: 'on' } : {}),
    ...(options.origin === 'none' && filtersOrigins ? { origin: 'none' } : {}),
  };
}
