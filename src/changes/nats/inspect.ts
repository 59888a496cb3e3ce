import { PgweaveError } from '../../core/errors.ts';
import { formatLsn } from '../../pg/lsn.ts';
import { connectNats, type NatsSpec } from './connection.ts';
import { StreamStore } from './stream-store.ts';

export interface LogFacts {
  readonly stream: string;
  readonly exists: boolean;
  readonly messages: number;
  readonly bytes: number;
  /** Everything that the source wrote before it is in the stream; null where nothing is. */
  readonly to: string | null;
}

/** Looks at a log without changing anything. Throws what stands against reading it; `log`: what its messages must say of their source. */
export async function inspectLog(spec: NatsSpec, log: string): Promise<LogFacts> {
  const connection = await connectNats(spec, 'check');
  try {
    const store = await StreamStore.open(connection, spec);
    const state = await store.state().catch((error: unknown) => {
      if (error instanceof PgweaveError && error.code === 'log-missing') return undefined;
      throw error;
    });
    if (!state) return { stream: spec.stream, exists: false, messages: 0, bytes: 0, to: null };
    const last = state.lastSeq === 0 ? undefined : await store.message(state.lastSeq);
    if (last && last.log !== log) throw new PgweaveError('log-of-another-source', `the stream ${spec.stream} holds the changes of another source or publication (${last.log}, ours is ${log})`, { retry: 'never', hint: 'Give each source and publication_name a stream of its own with log.nats.stream.' });
    return { stream: spec.stream, exists: true, messages: Math.max(0, state.lastSeq - state.firstSeq + 1), bytes: state.bytes, to: last ? formatLsn(last.to) : null };
  } finally {
    await connection.close();
  }
}
