import { connect, credsAuthenticator, type ConnectionOptions, type NatsConnection } from '@nats-io/transport-node';
import { errorMessage, PgweaveError } from '../../core/errors.ts';

/** Where the stream is, and how to get there. */
export interface NatsSpec {
  readonly servers: readonly string[];
  readonly stream: string;
  readonly user?: string | undefined;
  readonly password?: string | undefined;
  readonly token?: string | undefined;
  /** Text of a credentials file, as `nsc` makes it: a JWT and a key. */
  readonly credentials?: string | undefined;
  /** Files in PEM. The connection is encrypted where one is named, where a server's address begins with tls://, or where the server demands it. */
  readonly tlsCaFile?: string | undefined;
  readonly tlsCertFile?: string | undefined;
  readonly tlsKeyFile?: string | undefined;
  /** Copies in a cluster. */
  readonly replicas: number;
  /** The stream keeps at most so many bytes, and messages at most so long; then the oldest go. */
  readonly maxBytes: number;
  readonly maxAgeMs: number;
}

/**
 * Connects. Throws `nats-unreachable` at once where no server answers or it refuses; from then on the connection is made again for as long as it takes.
 */
export async function connectNats(spec: NatsSpec, role: string): Promise<NatsConnection> {
  const { user, password, token, credentials, tlsCaFile, tlsCertFile, tlsKeyFile } = spec;
  const encrypted = tlsCaFile !== undefined || tlsCertFile !== undefined || spec.servers.some((s) => s.startsWith('tls://'));
  const options: ConnectionOptions = {
    servers: [...spec.servers], name: `pgweave ${role}`, maxReconnectAttempts: -1, reconnectTimeWait: 500, timeout: 5000, pingInterval: 10_000, ignoreAuthErrorAbort: true,
    ...(user === undefined ? {} : { user, pass: password ?? '' }), ...(token === undefined ? {} : { token }),
    ...(credentials === undefined ? {} : { authenticator: credsAuthenticator(new TextEncoder().encode(credentials)) }),
    ...(encrypted ? { tls: { ...(tlsCaFile === undefined ? {} : { caFile: tlsCaFile }), ...(tlsCertFile === undefined ? {} : { certFile: tlsCertFile }), ...(tlsKeyFile === undefined ? {} : { keyFile: tlsKeyFile }) } } : {}),
  };
  try {
    return await connect(options);
  } catch (error) {
    throw new PgweaveError('nats-unreachable', `no NATS server at ${spec.servers.join(', ')} takes the connection: ${errorMessage(error)}`, {
      retry: 'backoff', cause: error, hint: 'Check log.nats.servers, that the server runs (nats-server -js), and the user, password, token or credentials of log.nats.',
    });
  }
}
