import { existsSync, readFileSync, statSync } from 'node:fs';
import { homedir, userInfo } from 'node:os';
import { join } from 'node:path';
import { PgweaveError, usageError } from '../core/errors.ts';
import { rememberSecret } from '../core/redact.ts';

export type SslMode = 'disable' | 'allow' | 'prefer' | 'require' | 'verify-ca' | 'verify-full';

/** Where to connect, with everything resolved that libpq would resolve. Source: PostgreSQL documentation, "Database Connection Control Functions". */
export interface ConnectionSpec {
  /** Tried in order. A host that begins with `/` is a folder of unix sockets. */
  readonly hosts: readonly { readonly host: string; readonly port: number }[];
  readonly database: string;
  readonly user: string;
  readonly password: string | undefined;
  /** Where the password came from, for error hints: `the connection string`, `PGPASSWORD`, `~/.pgpass, line 3`. */
  readonly passwordSource: string | undefined;
  readonly sslMode: SslMode;
  readonly sslRootCert: string | undefined;
  readonly sslCert: string | undefined;
  readonly sslKey: string | undefined;
  readonly sslPassword: string | undefined;
  readonly connectTimeoutMs: number;
  readonly targetSessionAttrs: 'any' | 'read-write' | 'read-only' | 'primary' | 'standby' | 'prefer-standby';
  /** Server options in libpq's `options` form, such as `-c role=app`. */
  readonly options: string | undefined;
}

const parameterNames = new Set([
  'host', 'hostaddr', 'port', 'dbname', 'user', 'password', 'passfile', 'sslmode', 'sslrootcert', 'sslcert', 'sslkey', 'sslpassword', 'connect_timeout', 'target_session_attrs', 'options', 'service', 'servicefile',
  'application_name', 'keepalives', 'keepalives_idle', 'keepalives_interval', 'keepalives_count', 'tcp_user_timeout', 'channel_binding', 'require_auth', 'gssencmode', 'krbsrvname', 'sslcompression', 'sslsni',
  'sslnegotiation', 'client_encoding', 'fallback_application_name', 'load_balance_hosts', 'ssl_min_protocol_version', 'ssl_max_protocol_version', 'sslcrl', 'sslcrldir',
]);
const environmentNames: Readonly<Record<string, string>> = {
  host: 'PGHOST', hostaddr: 'PGHOSTADDR', port: 'PGPORT', dbname: 'PGDATABASE', user: 'PGUSER', password: 'PGPASSWORD', passfile: 'PGPASSFILE', sslmode: 'PGSSLMODE', sslrootcert: 'PGSSLROOTCERT', sslcert: 'PGSSLCERT',
  sslkey: 'PGSSLKEY', connect_timeout: 'PGCONNECT_TIMEOUT', target_session_attrs: 'PGTARGETSESSIONATTRS', options: 'PGOPTIONS', service: 'PGSERVICE', servicefile: 'PGSERVICEFILE',
};
const sslModes: readonly string[] = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'];
const sessionAttrs: readonly string[] = ['any', 'read-write', 'read-only', 'primary', 'standby', 'prefer-standby'];

type Parameters = Map<string, string>;

/**
 * Resolves a URI (`postgresql://…`) or a key/value string (`host=… dbname=…`) as libpq does: the string first, then the service file, then `PG*`
 * variables, then defaults; the password also from the password file. Throws a usage error that names the fault, never the password.
 */
export function parseConninfo(text: string, env: NodeJS.ProcessEnv = process.env): ConnectionSpec {
  const trimmed = text.trim();
  const given = /^postgres(ql)?:\/\//i.test(trimmed) ? parseUri(trimmed) : parseKeyValue(trimmed);
  return resolveParameters(given, env);
}

function parseUri(uri: string): Parameters {
  const out: Parameters = new Map();
  const bad = (why: string) => usageError(`malformed connection URI: ${why}`, 'Write postgresql://user:password@host:5432/database, with special characters percent-encoded.');
  const decode = (part: string, what: string) => {
    try {
      return decodeURIComponent(part);
    } catch {
      throw bad(`bad percent-encoding in the ${what}`);
    }
  };
  let rest = uri.replace(/^[a-z]+:\/\//i, '');
  const queryAt = rest.indexOf('?');
  const query = queryAt >= 0 ? rest.slice(queryAt + 1) : '';
  if (queryAt >= 0) rest = rest.slice(0, queryAt);
  // A socket folder may be written unencoded only in ?host=; in the authority part it is %2F-encoded, so the first slash ends it.
  const slashAt = rest.indexOf('/');
  const authority = slashAt >= 0 ? rest.slice(0, slashAt) : rest;
  const path = slashAt >= 0 ? rest.slice(slashAt + 1) : '';
  const at = authority.lastIndexOf('@');
  // A password with a slash or a question mark in it would be taken for host, port and database, and be shown in their errors.
  if (path.includes('@') || (at < 0 && /:[^,]*[^,\d\]]/.test(authority.replace(/\[[^\]]*\]/g, '')) && query.includes('@'))) throw bad('an "@" comes after the first "/" or "?"; in a password write %2F for "/", %3F for "?" and %40 for "@"');
  if (at >= 0) {
    const credentials = authority.slice(0, at);
    const colon = credentials.indexOf(':');
    const user = decode(colon >= 0 ? credentials.slice(0, colon) : credentials, 'user name');
    if (user) out.set('user', user);
    if (colon >= 0) {
      const password = decode(credentials.slice(colon + 1), 'password');
      rememberSecret(password);
      out.set('password', password);
    }
  }
  const hosts: string[] = [];
  const ports: string[] = [];
  for (const item of authority.slice(at + 1).split(',')) {
    const bracket = /^\[([^\]]*)\](?::(.*))?$/.exec(item);
    const colon = item.lastIndexOf(':');
    const host = bracket ? bracket[1]! : colon >= 0 ? item.slice(0, colon) : item;
    const port = bracket ? (bracket[2] ?? '') : colon >= 0 ? item.slice(colon + 1) : '';
    if (!bracket && host.includes(':')) throw bad(`"${host}" has more than one colon; write an IPv6 address in brackets, or percent-encode the password`);
    hosts.push(decode(host, 'host'));
    ports.push(port);
  }
  if (hosts.some((h) => h !== '')) out.set('host', hosts.join(','));
  if (ports.some((p) => p !== '')) out.set('port', ports.join(','));
  if (path) out.set('dbname', decode(path, 'database name'));
  for (const pair of query.split('&')) {
    if (!pair) continue;
    const eq = pair.indexOf('=');
    if (eq < 0) throw bad(/^\w+$/.test(pair) ? `parameter "${pair}" has no value` : 'what follows the "?" is no list of name=value');
    const name = decode(pair.slice(0, eq), 'parameters');
    const value = decode(pair.slice(eq + 1), `parameter ${name}`);
    if (name === 'ssl' && value === 'true') out.set('sslmode', 'require');
    else if (!parameterNames.has(name)) throw usageError(`unknown connection parameter "${name}" in the URI`, 'See "Parameter Key Words" in the PostgreSQL documentation.');
    else out.set(name, value);
  }
  return out;
}

function parseKeyValue(text: string): Parameters {
  const out: Parameters = new Map();
  const hint = "Write postgresql://user@host/database, or host=… dbname=… user=…, with quotes around values that hold spaces: password='a b'.";
  if (text !== '' && !text.includes('=')) throw usageError(`not a connection string: "${text.replace(/:(?!\/\/).*@/s, ':***@')}"`, hint);
  let at = 0;
  const skipSpace = () => {
    while (at < text.length && /\s/.test(text[at]!)) at += 1;
  };
  for (skipSpace(); at < text.length; skipSpace()) {
    const name = /^[a-z_]+/i.exec(text.slice(at))?.[0];
    if (!name) throw usageError(`malformed connection string at character ${at + 1}`, hint);
    at += name.length;
    skipSpace();
    // Its name is not shown: it may be the second word of a password without quotes.
    if (text[at] !== '=') throw usageError(`malformed connection string: no "=" before character ${at + 1}`, hint);
    at += 1;
    skipSpace();
    let value = '';
    const quoted = text[at] === "'";
    if (quoted) at += 1;
    for (;;) {
      const c = text[at];
      if (c === undefined) {
        if (quoted) throw usageError(`malformed connection string: the quote that begins the value of "${name}" is not closed`, hint);
        break;
      }
      if (quoted ? c === "'" : /\s/.test(c)) break;
      if (c === '\\' && at + 1 < text.length) at += 1;
      value += text[at];
      at += 1;
    }
    if (quoted) at += 1;
    if (name === 'password' || name === 'sslpassword') rememberSecret(value);
    if (!parameterNames.has(name)) throw usageError(`unknown connection parameter "${name}"`, 'See "Parameter Key Words" in the PostgreSQL documentation.');
    out.set(name, value);
  }
  return out;
}

function resolveParameters(given: Parameters, env: NodeJS.ProcessEnv): ConnectionSpec {
  const home = env['HOME'] || homedir();
  const fromService = serviceParameters(given.get('service') ?? env['PGSERVICE'], given.get('servicefile') ?? env['PGSERVICEFILE'], home, env);
  const get = (name: string): string | undefined => {
    const found = given.get(name) ?? fromService.get(name) ?? (environmentNames[name] ? env[environmentNames[name]] : undefined);
    return found === undefined || found === '' ? undefined : found;
  };
  const user = get('user') ?? systemUser();
  const database = get('dbname') ?? user;
  const hostText = get('host') ?? get('hostaddr') ?? 'localhost';
  const addresses = hostText.split(',').map((h) => h.trim() || 'localhost');
  const portList = (get('port') ?? '5432').split(',').map((p) => p.trim() || '5432');
  if (portList.length > 1 && portList.length !== addresses.length) throw usageError(`${addresses.length} hosts but ${portList.length} ports`, 'Give one port for all hosts, or one for each.');
  const hosts = addresses.map((host, i) => {
    const port = Number(portList.length === 1 ? portList[0] : portList[i]);
    if (!Number.isInteger(port) || port < 1 || port > 65_535) throw usageError(`not a port: "${portList[i] ?? portList[0]}"`, 'A port is a number from 1 to 65535.');
    return { host, port };
  });
  const sslMode = get('sslmode') ?? 'prefer';
  if (!sslModes.includes(sslMode)) throw usageError(`unknown sslmode "${sslMode}"`, `One of: ${sslModes.join(', ')}.`);
  const attrs = get('target_session_attrs') ?? 'any';
  if (!sessionAttrs.includes(attrs)) throw usageError(`unknown target_session_attrs "${attrs}"`, `One of: ${sessionAttrs.join(', ')}.`);
  const timeout = Number(get('connect_timeout') ?? '10');
  if (!Number.isFinite(timeout) || timeout < 0) throw usageError(`not a connect_timeout: "${get('connect_timeout')}"`, 'Give whole seconds.');

  let password = get('password');
  let passwordSource = password === undefined ? undefined : given.has('password') ? 'the connection string' : fromService.has('password') ? 'the service file' : 'PGPASSWORD';
  if (password === undefined) {
    const found = passwordFromFile(get('passfile') ?? join(home, '.pgpass'), home, hosts, database, user);
    password = found?.password;
    passwordSource = found?.source;
  }
  rememberSecret(password);
  rememberSecret(get('sslpassword'));
  const fileOr = (name: string, fallback: string) => get(name) ?? (existsSync(join(home, '.postgresql', fallback)) ? join(home, '.postgresql', fallback) : undefined);
  return {
    hosts, database, user, password, passwordSource, sslMode: sslMode as SslMode, sslRootCert: fileOr('sslrootcert', 'root.crt'), sslCert: fileOr('sslcert', 'postgresql.crt'), sslKey: fileOr('sslkey', 'postgresql.key'),
    sslPassword: get('sslpassword'), connectTimeoutMs: timeout * 1000, targetSessionAttrs: attrs as ConnectionSpec['targetSessionAttrs'], options: get('options'),
  };
}

/** As libpq does where no user is named. Throws a PgweaveError for a user id without a name, as containers run under. */
function systemUser(): string {
  try {
    return userInfo().username;
  } catch {
    throw usageError('no user is named, and the operating system has no name for this one', 'Name the role in the connection string, or in PGUSER.');
  }
}

function serviceParameters(service: string | undefined, file: string | undefined, home: string, env: NodeJS.ProcessEnv): Parameters {
  const out: Parameters = new Map();
  if (!service) return out;
  const paths = file ? [file] : [join(home, '.pg_service.conf'), ...(env['PGSYSCONFDIR'] ? [join(env['PGSYSCONFDIR'], 'pg_service.conf')] : ['/etc/postgresql-common/pg_service.conf'])];
  for (const path of paths) {
    let text: string;
    try {
      text = readFileSync(path, 'utf8');
    } catch {
      continue;
    }
    let inside = false;
    let found = false;
    for (const raw of text.split(/\r?\n/)) {
      const line = raw.trim();
      if (line === '' || line.startsWith('#')) continue;
      if (line.startsWith('[')) {
        inside = line === `[${service}]`;
        found ||= inside;
      } else if (inside) {
        const eq = line.indexOf('=');
        if (eq > 0) out.set(line.slice(0, eq).trim(), line.slice(eq + 1).trim());
      }
    }
    if (found) {
      rememberSecret(out.get('password'));
      return out;
    }
  }
  throw usageError(`service "${service}" is in no service file`, `Looked in: ${paths.join(', ')}.`);
}

/** The first matching line of a password file. Source: PostgreSQL documentation, "The Password File". */
function passwordFromFile(path: string, home: string, hosts: ConnectionSpec['hosts'], database: string, user: string): { password: string; source: string } | undefined {
  let text: string;
  try {
    // libpq ignores a password file that others can read.
    if (process.platform !== 'win32' && (statSync(path).mode & 0o077) !== 0) return undefined;
    text = readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
  const shown = path.startsWith(`${home}/`) ? `~${path.slice(home.length)}` : path;
  const lines = text.split(/\r?\n/);
  for (let i = 0; i < lines.length; i += 1) {
    const line = lines[i]!;
    if (line === '' || line.startsWith('#')) continue;
    const fields: string[] = [];
    let field = '';
    for (let at = 0; at < line.length; at += 1) {
      if (line[at] === '\\' && at + 1 < line.length) {
        at += 1;
        field += line[at];
      } else if (line[at] === ':' && fields.length < 4) {
        fields.push(field);
        field = '';
      } else field += line[at];
    }
    fields.push(field);
    if (fields.length < 5) continue;
    const matches = (pattern: string, value: string) => pattern === '*' || pattern === value;
    const [host, port, db, role, password] = fields as [string, string, string, string, string];
    const hostMatches = hosts.some((h) => (matches(host, h.host) || (h.host.startsWith('/') && host === 'localhost')) && matches(port, String(h.port)));
    if (hostMatches && matches(db, database) && matches(role, user)) return { password, source: `${shown}, line ${i + 1}` };
  }
  return undefined;
}

/** The same server and role with another database. */
export function withDatabase(spec: ConnectionSpec, database: string): ConnectionSpec {
  return { ...spec, database };
}

/** `host:port/database` for people and for telling jobs apart; holds no secret. */
export function describeConnection(spec: ConnectionSpec): string {
  return `${describeHosts(spec)}/${spec.database}`;
}

/** `host:port`, or several of them. */
export function describeHosts(spec: ConnectionSpec): string {
  return spec.hosts.map((h) => `${h.host}:${h.port}`).join(',');
}

/**
 * The URI of a connection without its password, for output and for child processes, which get the password by PGPASSWORD or a password file.
 * Throws where a host cannot be written in a URI.
 */
export function publicUri(spec: ConnectionSpec): string {
  const hosts = spec.hosts.map((h) => `${h.host.includes(':') ? `[${h.host}]` : encodeURIComponent(h.host)}:${h.port}`).join(',');
  const query = new URLSearchParams({ sslmode: spec.sslMode });
  if (spec.sslRootCert) query.set('sslrootcert', spec.sslRootCert);
  if (spec.sslCert) query.set('sslcert', spec.sslCert);
  if (spec.sslKey) query.set('sslkey', spec.sslKey);
  if (spec.targetSessionAttrs !== 'any') query.set('target_session_attrs', spec.targetSessionAttrs);
  if (spec.options) query.set('options', spec.options);
  return `postgresql://${encodeURIComponent(spec.user)}@${hosts}/${encodeURIComponent(spec.database)}?${query.toString().replaceAll('+', '%20')}`;
}

/** Reads a certificate or key file named by a connection. Throws a PgweaveError that names the file. */
export function readTlsFile(path: string, what: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new PgweaveError('tls-file', `cannot read the ${what} ${path}: ${(error as NodeJS.ErrnoException).code ?? 'unknown error'}`, { hint: 'Check the path and its permissions.', exitCode: 2, retry: 'never' });
  }
}
