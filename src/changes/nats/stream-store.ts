import { AckPolicy, DeliverPolicy, DiscardPolicy, jetstream, JetStreamApiError, jetstreamManager, RetentionPolicy, StorageType, type Consumer, type JetStreamClient, type JetStreamManager, type StreamConfig, type StreamInfo } from '@nats-io/jetstream';
import { nanos, type NatsConnection } from '@nats-io/transport-node';
import { errorMessage, PgweaveError } from '../../core/errors.ts';
import type { NatsSpec } from './connection.ts';
import { decodeHeaders, type LogMessage } from './log-message.ts';

/** Sources: NATS documentation, "Streams" and "JetStream Wire API Reference"; nats-server's server/errors.json. */
const errorCode = { streamNotFound: 10059 } as const;

/** How long an answer of JetStream is waited for. */
export const answerMs = 5000;

/** A message with its number in the stream. */
export interface StoredMessage extends LogMessage {
  readonly seq: number;
  /** What JetStream knows repetitions by. */
  readonly id: string;
}

export interface StreamState {
  /** 1 more than `lastSeq` where the stream is empty. */
  readonly firstSeq: number;
  /** 0 where nothing was ever stored. */
  readonly lastSeq: number;
  readonly bytes: number;
}

/** One stream of ours on JetStream: made, looked into, and read from a number on. */
export class StreamStore {
  readonly #connection: NatsConnection;
  readonly #spec: NatsSpec;
  readonly #manager: JetStreamManager;
  readonly client: JetStreamClient;

  private constructor(connection: NatsConnection, spec: NatsSpec, manager: JetStreamManager) {
    this.#connection = connection;
    this.#spec = spec;
    this.#manager = manager;
    this.client = jetstream(connection, { timeout: answerMs });
  }

  /** Throws `jetstream-missing` where the server has no JetStream, or not for this account. */
  static async open(connection: NatsConnection, spec: NatsSpec): Promise<StreamStore> {
    try {
      return new StreamStore(connection, spec, await jetstreamManager(connection, { timeout: answerMs }));
    } catch (error) {
      throw new PgweaveError('jetstream-missing', `the NATS server at ${spec.servers.join(', ')} has no JetStream for us: ${errorMessage(error)}`, { retry: 'backoff', hint: 'Start it with JetStream: nats-server -js -sd FOLDER, and enable it for the account.', cause: error });
    }
  }

  get stream(): string {
    return this.#spec.stream;
  }

  get subject(): string {
    return `pgweave.${this.#spec.stream}`;
  }

  /** Bytes of frames that fit into a message: the server's limit, less the headers. */
  get messageBytes(): number {
    return Math.max(1024, Math.min(512 * 1024, (this.#connection.info?.max_payload ?? 1024 * 1024) - 4096));
  }

  /** Makes the stream, or brings its limits to what is configured. Throws `stream-not-ours` for one that holds something else. */
  async ensure(): Promise<StreamState> {
    const { stream, replicas, maxBytes, maxAgeMs } = this.#spec;
    const wanted = { max_bytes: maxBytes, max_age: nanos(maxAgeMs), num_replicas: replicas };
    const config: Partial<StreamConfig> & { name: string } = {
      name: stream, description: 'changes of a PostgreSQL source, written by pgweave', subjects: [this.subject], storage: StorageType.File, retention: RetentionPolicy.Limits, discard: DiscardPolicy.Old, duplicate_window: nanos(120_000), max_consumers: -1, ...wanted,
    };
    const there = await this.#info();
    if (!there) return state(await this.#told(() => this.#manager.streams.add(config)));
    this.#checkOurs(there);
    const same = (Object.keys(wanted) as (keyof typeof wanted)[]).every((key) => there.config[key] === wanted[key]);
    return state(same ? there : await this.#told(() => this.#manager.streams.update(stream, wanted)));
  }

  /** Throws `log-missing` where there is no such stream. */
  async state(): Promise<StreamState> {
    const info = await this.#info();
    if (!info) throw new PgweaveError('log-missing', `NATS has no stream ${this.stream}`, { retry: 'backoff', hint: 'The publisher makes it: start pgweave fanout publish with the same configuration.' });
    this.#checkOurs(info);
    return state(info);
  }

  /** Undefined where the stream has no message of that number, or none of ours. */
  async message(seq: number): Promise<StoredMessage | undefined> {
    const stored = await this.#manager.streams.getMessage(this.stream, { seq });
    const decoded = stored ? decodeHeaders(stored.header) : undefined;
    return decoded && stored ? { ...decoded, seq, id: stored.header.get('Nats-Msg-Id') } : undefined;
  }

  /** A consumer that the server forgets when it is not asked for a while: where a reader stands is known on its target. */
  async readFrom(seq: number): Promise<Consumer> {
    const info = await this.#manager.consumers.add(this.stream, { ack_policy: AckPolicy.None, deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: seq, inactive_threshold: nanos(60_000), mem_storage: true, num_replicas: 1, max_deliver: 1 });
    return this.client.consumers.get(this.stream, info.name);
  }

  async forget(consumer: Consumer): Promise<void> {
    await consumer.delete().catch(() => undefined);
  }

  async #info(): Promise<StreamInfo | undefined> {
    try {
      return await this.#manager.streams.info(this.stream);
    } catch (error) {
      if (codeOf(error) === errorCode.streamNotFound) return undefined;
      throw error;
    }
  }

  #checkOurs(info: StreamInfo): void {
    if (info.config.subjects.length === 1 && info.config.subjects[0] === this.subject) return;
    throw new PgweaveError('stream-not-ours', `the stream ${this.stream} on NATS is somebody else's: it takes ${info.config.subjects.join(', ')}, not ${this.subject}`, { retry: 'never', hint: 'Choose another name in log.nats.stream.' });
  }

  async #told<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof JetStreamApiError)) throw error;
      throw new PgweaveError('stream-refused', `NATS refuses the stream ${this.stream}: ${errorMessage(error)}`, { retry: 'backoff', hint: 'Check max_bytes and replicas of log.nats against the room and the number of servers there, and the rights of its user.', cause: error });
    }
  }
}

function state(info: StreamInfo): StreamState {
  return { firstSeq: info.state.first_seq, lastSeq: info.state.last_seq, bytes: info.state.bytes };
}

function codeOf(error: unknown): number | undefined {
  return error instanceof JetStreamApiError ? error.code : undefined;
}
