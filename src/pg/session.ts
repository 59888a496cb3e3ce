import type { Socket } from 'node:net';
import pg from 'pg';
import { PgweaveError, interruptedError } from '../core/errors.ts';
import { connectError } from './connect-error.ts';
import { readTlsFile, type ConnectionSpec } from './conninfo.ts';
import { sqlstate, sqlstateOf } from './sqlstate.ts';
import { catalogTypes } from './values.ts';

/** A statement with its parameters, as the functions under catalog/ return it. */
export interface Sql {
  readonly text: string;
  readonly values?: readonly unknown[];
}

export interface SessionOptions {
  /** What the connection is for: shown in application_name as `pgweave <job> <role>`. */
  readonly role: string;
  readonly job?: string;
  /** Names the side in errors: `the source`, `the target`. */
  readonly side?: string;
  /** A walsender connection to the database. */
  readonly replication?: boolean;
  /** When it fires, the running query is cancelled and the connection closed. */
  readonly signal?: AbortSignal | undefined;
  /** Extra `-c name=value` startup settings; where a server or pooler refuses them, connecting fails. */
  readonly startupOptions?: Readonly<Record<string, string>>;
}

/**
 * Settings of all our sessions: no timeouts that a role or database may have set [hard case 38], writes allowed on a database that a switchover closed to
 * others (the way back applies there), an empty search_path, and the output settings
 * on which equal bytes rest [34]. Settings of newer servers are set only there.
 */
export function sessionSettings(serverVersion: number): string {
  const settings = [
    `set statement_timeout = 0`, `set lock_timeout = 0`, `set idle_in_transaction_session_timeout = 0`, `set search_path = ''`, `set client_encoding = 'UTF8'`, `set datestyle = 'ISO, YMD'`, `set intervalstyle = 'postgres'`,
    `set timezone = 'UTC'`, `set extra_float_digits = 3`, `set bytea_output = 'hex'`, `set xmloption = 'content'`, `set standard_conforming_strings = on`, `set client_min_messages = 'warning'`, `set row_security = off`, `set default_transaction_read_only = off`, `set default_transaction_isolation = 'read committed'`, `set default_transaction_deferrable = off`,
  ];
  if (serverVersion >= 140_000) settings.push(`set idle_session_timeout = 0`);
  if (serverVersion >= 170_000) settings.push(`set transaction_timeout = 0`);
  return settings.join('; ');
}

interface PgInternals {
  readonly connection: { readonly stream: Socket };
  readonly processID: number;
}

/** One connection to a server. Statements run one after another in the order of the calls. Closed by `close()` or `await using`. */
export class Session implements AsyncDisposable {
  readonly spec: ConnectionSpec;
  /** Such as 150018 for 15.18. */
  readonly serverVersion: number;
  /** As the server prints it, such as `15.18 (Debian …)`. */
  readonly serverVersionText: string;
  /** The host of `spec.hosts` that answered. */
  readonly host: { readonly host: string; readonly port: number };
  readonly #client: pg.Client;
  readonly #options: SessionOptions;
  #lost: Error | undefined;
  #closed = false;
  #onAbort: (() => void) | undefined;

  private constructor(client: pg.Client, spec: ConnectionSpec, host: Session['host'], version: { number: number; text: string }, options: SessionOptions) {
    this.#client = client;
    this.spec = spec;
    this.host = host;
    this.serverVersion = version.number;
    this.serverVersionText = version.text;
    this.#options = options;
    client.on('error', (error) => {
      this.#lost ??= error;
    });
    client.on('end', () => {
      this.#lost ??= new Error('Connection terminated');
    });
    if (options.signal) {
      this.#onAbort = () => void this.#abort();
      options.signal.addEventListener('abort', this.#onAbort, { once: true });
    }
  }

  /** Connects, authenticates and sets the session up. Throws a PgweaveError with a hint. */
  static async open(spec: ConnectionSpec, options: SessionOptions): Promise<Session> {
    const side = options.side ?? 'the server';
    let last: unknown;
    const standbyLast = spec.targetSessionAttrs === 'prefer-standby' ? (['standby', 'any'] as const) : ([spec.targetSessionAttrs] as const);
    for (const attrs of standbyLast) {
      for (const host of spec.hosts) {
        if (options.signal?.aborted) throw interruptedError();
        try {
          const session = await Session.#connect(spec, host, options);
          if (await session.#fits(attrs)) return session;
          await session.close();
          last = new PgweaveError('no-such-server', `cannot connect to ${side}: ${host.host}:${host.port} is not what target_session_attrs=${attrs} asks for`, { hint: 'Name the right host, or leave target_session_attrs out.' });
        } catch (error) {
          last = error;
        }
      }
    }
    throw connectError(last, spec, side);
  }

  static async #connect(spec: ConnectionSpec, host: Session['host'], options: SessionOptions): Promise<Session> {
    const unixSocket = host.host.startsWith('/');
    const attempts: (pg.ClientConfig['ssl'])[] = unixSocket || spec.sslMode === 'disable' ? [false] : spec.sslMode === 'allow' ? [false, tlsOptions(spec, host.host)] : spec.sslMode === 'prefer' ? [tlsOptions(spec, host.host), false] : [tlsOptions(spec, host.host)];
    let first: unknown;
    for (const ssl of attempts) {
      const client = new pg.Client(clientConfig(spec, host, options, ssl));
      // Without a listener an error between two queries would end the process.
      client.on('error', () => undefined);
      try {
        await client.connect();
        return await Session.#setUp(client, spec, host, options);
      } catch (error) {
        first ??= error;
        await client.end().catch(() => undefined);
        // `prefer` falls back to plain only where the server has no TLS, as libpq does; `allow` tries TLS only where plain was refused.
        const noTls = /does not support SSL/.test((error as Error).message);
        if (spec.sslMode === 'prefer' && ssl !== false && noTls) first = undefined;
        else if (!(spec.sslMode === 'allow' && ssl === false && (error as { code?: string }).code === '28000')) break;
      }
    }
    throw first;
  }

  static async #setUp(client: pg.Client, spec: ConnectionSpec, host: Session['host'], options: SessionOptions): Promise<Session> {
    await liftTimeout(client);
    const { rows } = await client.query<{ server_version: string }>('show server_version');
    const text = rows[0]!.server_version;
    const number = versionNumber(text);
    await client.query(sessionSettings(number));
    return new Session(client, spec, host, { number, text }, options);
  }

  async #fits(attrs: ConnectionSpec['targetSessionAttrs']): Promise<boolean> {
    if (attrs === 'any') return true;
    const [row] = await this.query<{ standby: boolean; read_only: boolean }>(`select pg_catalog.pg_is_in_recovery() as standby, pg_catalog.current_setting('transaction_read_only') = 'on' as read_only`);
    const { standby, read_only: readOnly } = row!;
    switch (attrs) {
      case 'primary': return !standby;
      case 'standby': return standby;
      case 'read-write': return !standby && !readOnly;
      case 'read-only': return standby || readOnly;
      default: return true;
    }
  }

  /** Process id of the backend. */
  get pid(): number {
    return (this.#client as unknown as PgInternals).processID;
  }

  /** Why the connection was lost, if it was. */
  get lost(): Error | undefined {
    return this.#lost;
  }

  /** Runs one statement with parameters and returns its rows; see pg/values.ts for their types. */
  async query<Row extends object = Record<string, unknown>>(sql: Sql | string, values?: readonly unknown[]): Promise<Row[]> {
    const text = typeof sql === 'string' ? sql : sql.text;
    const parameters = values ?? (typeof sql === 'string' ? undefined : sql.values);
    const result = await this.#run(() => (parameters === undefined ? this.#client.query(text) : this.#client.query(text, [...parameters])));
    // Several statements in one text give an array of results; the last one counts.
    const final = Array.isArray(result) ? (result.at(-1) as pg.QueryResult) : result;
    return final.rows as Row[];
  }

  /** The only row of a statement. Throws where there is none. */
  async one<Row extends object = Record<string, unknown>>(sql: Sql | string, values?: readonly unknown[]): Promise<Row> {
    const [row] = await this.query<Row>(sql, values);
    if (row === undefined) throw new PgweaveError('no-row', `a query that must return a row returned none: ${(typeof sql === 'string' ? sql : sql.text).slice(0, 80)}`);
    return row;
  }

  /** Rows affected by one statement. */
  async execute(sql: Sql | string, values?: readonly unknown[]): Promise<number> {
    const text = typeof sql === 'string' ? sql : sql.text;
    const parameters = values ?? (typeof sql === 'string' ? undefined : sql.values);
    const result = await this.#run(() => (parameters === undefined ? this.#client.query(text) : this.#client.query(text, [...parameters])));
    return (Array.isArray(result) ? (result.at(-1) as pg.QueryResult) : result).rowCount ?? 0;
  }

  /** Runs `work` in a transaction; rolls back where it throws. `begin` may carry modes, such as `begin isolation level repeatable read read only`. */
  async transaction<T>(work: () => Promise<T>, begin = 'begin'): Promise<T> {
    await this.query(begin);
    try {
      const result = await work();
      await this.query('commit');
      return result;
    } catch (error) {
      await this.query('rollback').catch(() => undefined);
      throw error;
    }
  }

  /** Cancels the statement that runs, from a second connection. Never throws. */
  async cancel(): Promise<void> {
    try {
      await using other = await Session.open({ ...this.spec, hosts: [this.host] }, { role: 'cancel', ...(this.#options.job === undefined ? {} : { job: this.#options.job }) });
      await other.query('select pg_catalog.pg_cancel_backend($1)', [this.pid]);
    } catch {
      // The server is gone or the backend has ended: nothing is left to cancel.
    }
  }

  /**
   * Hands over the authenticated, idle socket: node-postgres stops listening to it and this session is closed to queries. The caller speaks the
   * frontend/backend protocol from here on and destroys the socket at the end.
   */
  takeSocket(): Socket {
    this.#closed = true;
    this.#forgetSignal();
    const { stream } = (this.#client as unknown as PgInternals).connection;
    for (const event of ['data', 'error', 'close', 'end', 'readable', 'drain']) stream.removeAllListeners(event);
    stream.pause();
    // An error before the caller listens must not end the process.
    stream.on('error', () => undefined);
    return stream;
  }

  /** Calls back once when the connection is lost, at once where it was already. */
  onLost(listener: (error: Error) => void): void {
    if (this.#lost) listener(this.#lost);
    else {
      this.#client.once('error', listener);
      this.#client.once('end', () => {
        if (!this.#closed) listener(this.#lost ?? new Error('Connection terminated'));
      });
    }
  }

  /** Listens to asynchronous notices of the server (raise notice, warnings). */
  onNotice(listener: (notice: { readonly severity: string; readonly message: string }) => void): void {
    this.#client.on('notice', (n) => listener({ severity: n.severity ?? '', message: n.message ?? '' }));
  }

  /** Hears what LISTEN brings: channel and payload. */
  onNotification(listener: (channel: string, payload: string) => void): void {
    this.#client.on('notification', (n) => listener(n.channel, n.payload ?? ''));
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#forgetSignal();
    await this.#client.end().catch(() => undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #run<T>(start: () => Promise<T>): Promise<T> {
    if (this.#options.signal?.aborted) throw interruptedError();
    if (this.#closed) throw new PgweaveError('connection-closed', 'the connection is closed');
    try {
      return await start();
    } catch (error) {
      if (this.#options.signal?.aborted) throw interruptedError();
      throw error;
    }
  }

  async #abort(): Promise<void> {
    await this.cancel();
    await this.close();
  }

  #forgetSignal(): void {
    if (this.#onAbort) this.#options.signal?.removeEventListener('abort', this.#onAbort);
    this.#onAbort = undefined;
  }
}

/** `15.18 (Debian 15.18-0+deb12u1)` is 150018; `18beta1` is 180000. */
export function versionNumber(text: string): number {
  const match = /^(\d+)(?:\.(\d+))?/.exec(text);
  if (!match) throw new PgweaveError('version-unknown', `the server's version "${text}" cannot be read`);
  return Number(match[1]) * 10_000 + Number(match[2] ?? 0);
}

function clientConfig(spec: ConnectionSpec, host: Session['host'], options: SessionOptions, ssl: pg.ClientConfig['ssl']): pg.ClientConfig {
  const startup = Object.entries(options.startupOptions ?? {}).map(([name, value]) => `-c ${name}=${value.replace(/([\\ ])/g, '\\$1')}`);
  const serverOptions = [...(spec.options ? [spec.options] : []), ...startup].join(' ');
  const config: pg.ClientConfig & { replication?: string } = {
    host: host.host, port: host.port, user: spec.user, database: spec.database, password: () => spec.password ?? '', connectionTimeoutMillis: spec.connectTimeoutMs, keepAlive: true, keepAliveInitialDelayMillis: 30_000,
    application_name: `pgweave ${options.job ? `${options.job} ` : ''}${options.role}`.slice(0, 63), types: catalogTypes as unknown as pg.CustomTypesConfig, ...(ssl === undefined ? {} : { ssl }),
    ...(serverOptions ? { options: serverOptions } : {}), ...(options.replication ? { replication: 'database' } : {}),
  };
  return config;
}

/** Source: PostgreSQL documentation, "SSL Support", table of sslmode values: `require` verifies the chain where a root certificate is given. */
function tlsOptions(spec: ConnectionSpec, host: string): NonNullable<pg.ClientConfig['ssl']> {
  const systemRoots = spec.sslRootCert === 'system';
  const root = spec.sslRootCert && !systemRoots ? readTlsFile(spec.sslRootCert, 'root certificate') : undefined;
  if (spec.sslMode === 'verify-ca' && !root && !systemRoots) throw new PgweaveError('tls-file', 'sslmode=verify-ca needs the authority\'s certificate', { hint: 'Name it with sslrootcert=FILE, or place it at ~/.postgresql/root.crt.', exitCode: 2, retry: 'never' });
  const verifyChain = spec.sslMode === 'verify-ca' || spec.sslMode === 'verify-full' || (spec.sslMode === 'require' && root !== undefined);
  return {
    host, rejectUnauthorized: verifyChain, ...(root ? { ca: root } : {}), ...(spec.sslCert ? { cert: readTlsFile(spec.sslCert, 'client certificate') } : {}), ...(spec.sslKey ? { key: readTlsFile(spec.sslKey, 'client key') } : {}),
    ...(spec.sslPassword ? { passphrase: spec.sslPassword } : {}), ...(verifyChain && spec.sslMode !== 'verify-full' ? { checkServerIdentity: () => undefined } : {}),
  };
}

/** A role or database may have a limit so short that on a busy machine it hits the very statement that lifts it [hard case 38]. */
async function liftTimeout(client: pg.Client): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      await client.query('set statement_timeout = 0');
      return;
    } catch (error) {
      if (sqlstateOf(error) !== sqlstate.queryCanceled || attempt === 20) throw error;
    }
  }
}
