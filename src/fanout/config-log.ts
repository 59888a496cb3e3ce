import { z } from 'zod';
import type { NatsSpec } from '../changes/nats/connection.ts';
import { usageError } from '../core/errors.ts';
import { rememberSecret } from '../core/redact.ts';

/** A type of YAML that both a number and a text with a unit make. */
type Measure = z.ZodType<number, number | string>;

/** `replication.log`: where committed transactions lie between the publisher and the machines of the targets. */
export function logSchema(size: Measure, duration: Measure) {
  const text = z.string().min(1);
  return z.strictObject({
    nats: z.strictObject({
      servers: z.union([text, z.array(text).min(1)]),
      stream: z.string().regex(/^[A-Za-z0-9_-]{1,64}$/, 'a stream\'s name is 1 to 64 letters, digits, dashes or underscores'),
      user: text.optional(), password: text.optional(), password_file: text.optional(), token: text.optional(), token_file: text.optional(), credentials: text.optional(), credentials_file: text.optional(),
      tls_ca_file: text.optional(), tls_cert_file: text.optional(), tls_key_file: text.optional(),
      replicas: z.number().int().min(1).max(5).default(1), max_bytes: size.prefault('10GB'), max_age: duration.prefault('7d'),
    }),
  });
}

type RawLog = z.output<ReturnType<typeof logSchema>>;

export interface LogPlaces {
  /** `line 12: ` of a key under `nats`, for messages. */
  readonly at: (key: string) => string;
  readonly path: string;
  /** Reads a secret's file, relative to the configuration; throws a usage error that names its key. */
  readonly secret: (file: string, key: string) => string;
  /** A path relative to the configuration as an absolute one. */
  readonly resolve: (file: string) => string;
}

/** Checks what the schema cannot, and reads the secrets. */
export function resolveLog(raw: RawLog, places: LogPlaces): NatsSpec {
  const { nats } = raw;
  const secret = (key: 'password' | 'token' | 'credentials') => {
    const file = nats[`${key}_file`];
    if (nats[key] !== undefined && file !== undefined) throw usageError(`${places.path}: ${places.at(`${key}_file`)}both ${key} and ${key}_file are given`, 'Give the one or the other.');
    const value = nats[key] ?? (file === undefined ? undefined : places.secret(file, `${key}_file`));
    rememberSecret(value);
    return value;
  };
  const servers = typeof nats.servers === 'string' ? [nats.servers] : nats.servers;
  for (const server of servers) {
    const match = /^(?:(?:nats|tls):\/\/)?(?<user>[^@/]*@)?[^@/\s]+(?::\d+)?\/?$/.exec(server);
    if (!match) throw usageError(`${places.path}: ${places.at('servers')}not the address of a NATS server: ${server}`, 'Write nats://host:4222, or tls://host:4222.');
    if (match.groups?.['user'] !== undefined) throw usageError(`${places.path}: ${places.at('servers')}the address of a NATS server holds a user or a password`, 'Write them as user and password of log.nats.');
  }
  const password = secret('password');
  const token = secret('token');
  const credentials = secret('credentials');
  if ([nats.user, token, credentials].filter((v) => v !== undefined).length > 1) throw usageError(`${places.path}: ${places.at('stream')}log.nats has more than one of user, token and credentials`, 'Give one.');
  if (password !== undefined && nats.user === undefined) throw usageError(`${places.path}: ${places.at('password')}log.nats has a password and no user`, 'Give the user too.');
  if ((nats.tls_cert_file === undefined) !== (nats.tls_key_file === undefined)) throw usageError(`${places.path}: ${places.at('tls_cert_file')}tls_cert_file and tls_key_file belong together`, 'Give both or neither.');
  if (nats.max_bytes < 1024 * 1024) throw usageError(`${places.path}: ${places.at('max_bytes')}a stream of less than 1 MB keeps nothing`, 'Give it room for what is written while a target is away.');
  if (nats.max_age < 60_000) throw usageError(`${places.path}: ${places.at('max_age')}a stream that keeps messages for less than a minute keeps nothing`, 'Give it the time that a target may be away.');
  const file = (path: string | undefined) => (path === undefined ? undefined : places.resolve(path));
  return {
    servers, stream: nats.stream, user: nats.user, password, token, credentials, tlsCaFile: file(nats.tls_ca_file), tlsCertFile: file(nats.tls_cert_file), tlsKeyFile: file(nats.tls_key_file), replicas: nats.replicas, maxBytes: nats.max_bytes, maxAgeMs: nats.max_age,
  };
}
