import { errorMessage, PgweaveError } from '../core/errors.ts';
import { describeHosts, type ConnectionSpec } from './conninfo.ts';
import { sqlstate, sqlstateOf } from './sqlstate.ts';

/** Turns what a failed connection attempt threw into an error that says which server, what was wrong, and what to do. */
export function connectError(error: unknown, spec: ConnectionSpec, side: string): PgweaveError {
  if (error instanceof PgweaveError) return error;
  const where = describeHosts(spec);
  const state = sqlstateOf(error);
  const code = (error as { code?: string }).code;
  const text = errorMessage(error);
  const make = (kind: string, why: string, hint: string, retry: 'manual' | 'backoff' = 'manual') =>
    new PgweaveError(kind, `cannot connect to ${side}: ${why}`, { hint, retry, cause: error, details: { server: where, database: spec.database, user: spec.user, sqlstate: state } });
  const passwordHint = spec.password === undefined ? 'No password was given. Put it into the connection string, PGPASSWORD or ~/.pgpass.' : `The password came from ${spec.passwordSource}. Set PGPASSWORD or correct it there.`;

  if (state === sqlstate.invalidPassword || state === sqlstate.invalidAuthorization) {
    const hba = /pg_hba\.conf/.test(text);
    // Roles that are not there, or may not log in; a wrong password is another state.
    if (!hba && state === sqlstate.invalidAuthorization) return make('authentication-failed', `${text} (${where})`, 'Correct the user in the connection string, or create that role on the server, with LOGIN.');
    return make(hba ? 'not-admitted' : 'authentication-failed', `${text} (${where})`, hba ? 'Let this host, role and database in with a line in pg_hba.conf on the server (a logical replication connection is matched by the name of the database), then reload it.' : passwordHint);
  }
  if (/client password must be a (non-empty )?string/.test(text)) return make('authentication-failed', `the server asks for a password of role "${spec.user}" and none was given (${where})`, passwordHint);
  if (state === sqlstate.invalidCatalogName) return make('no-such-database', `${text} (${where})`, `Create it, or correct the name in the connection string. To list what is there: psql -l -h ${spec.hosts[0]!.host} -p ${spec.hosts[0]!.port}`);
  if (state === sqlstate.tooManyConnections) return make('too-many-connections', `${text} (${where})`, 'Free connections or raise max_connections; fewer --jobs need fewer connections.', 'backoff');
  if (state === sqlstate.cannotConnectNow) return make('server-starting', `${text} (${where})`, 'The server is starting or stopping. Try again in a moment.', 'backoff');
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return make('no-such-host', `no such host: ${where}`, 'Check the spelling of the host and the DNS of this machine.', code === 'EAI_AGAIN' ? 'backoff' : 'manual');
  if (code === 'ECONNREFUSED' || code === 'ENOENT') return make('connection-refused', `nothing listens at ${where}`, 'Is the server up, is the port right, and does listen_addresses let this machine in?', 'backoff');
  if (code === 'ETIMEDOUT' || code === 'EHOSTUNREACH' || code === 'ENETUNREACH' || /timeout expired/.test(text)) {
    return make('connection-timeout', `no answer from ${where} within ${spec.connectTimeoutMs / 1000} s`, 'Check firewall rules and security groups; connect_timeout=SECONDS in the connection string waits longer.', 'backoff');
  }
  if (/does not support SSL/.test(text)) return make('tls-refused', `${where} does not offer TLS, and sslmode=${spec.sslMode} asks for it`, 'Turn ssl on in the server, or connect with sslmode=prefer where the network is trusted.');
  if (typeof code === 'string' && (/^(ERR_TLS|ERR_SSL|CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO)/.test(code) || code === 'ERR_OSSL_PEM_NO_START_LINE')) {
    return make('tls-failed', `TLS with ${where} failed: ${text}`, 'Name the authority that signed the server\'s certificate with sslrootcert=FILE; verify-full also needs the host name that the certificate bears.');
  }
  return make('connection-failed', `${text} (${where})`, 'The server\'s log says more.', state === undefined || state.startsWith('08') || state.startsWith('57') ? 'backoff' : 'manual');
}
