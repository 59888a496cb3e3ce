import { sleep } from '../core/abort.ts';
import { errorMessage, PgweaveError } from '../core/errors.ts';
import type { JobSnapshot } from '../core/snapshot.ts';
import type { TableRef } from '../core/tables.ts';
import type { History, HistoryRange } from './history.ts';
import type { CheckResult, ControlState, JobActions, JobControl, SwitchoverRequest, TableAction } from './job-control.ts';
import { applyMessage, snapshotOf, type FeedMessage, type JobView, type SwitchoverState } from './messages.ts';

export interface RemoteOptions {
  /** `http://host:port` of a running job's API. */
  readonly url: string;
  readonly token?: string | undefined;
}

const pollEveryMs = 500;
const requestTimeoutMs = 10_000;

/**
 * A job in another process, over its API: what changed is polled twice a second, actions are handed on. Goes on asking while the other side is
 * away, and tells so in `state()`.
 */
export class RemoteControl implements JobControl, AsyncDisposable {
  readonly #actions: JobActions;
  readonly #url: string;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #abort = new AbortController();
  readonly #polling: Promise<void>;
  #view: JobView;
  #snapshot: JobSnapshot | null = null;
  #config: Readonly<Record<string, unknown>>;
  #lost: { since: number; why: string } | null = null;

  private constructor(url: string, headers: Readonly<Record<string, string>>, view: JobView, config: Readonly<Record<string, unknown>>) {
    this.#url = url;
    this.#headers = headers;
    this.#view = view;
    this.#config = config;
    this.#actions = {
      pause: () => this.#post('/pause'),
      resume: () => this.#post('/resume'),
      table: (action: TableAction, table: TableRef) => this.#post(`/tables/${encodeURIComponent(table.schema)}/${encodeURIComponent(table.name)}/${action}`),
      switchover: (request, signal) => this.#switchover(request, signal),
      checks: async () => ((await this.#request('GET', '/switchover/checks')) as { checks: CheckResult[] | null }).checks ?? [],
    };
    this.#polling = this.#poll();
  }

  /**
   * Connects and gets the whole state once.
   * @throws PgweaveError `api-unreachable`, `api-refused` (token, Host), `usage` for what is no URL.
   */
  static async connect(options: RemoteOptions): Promise<RemoteControl> {
    if (!URL.canParse(options.url) || !/^https?:$/.test(new URL(options.url).protocol)) {
      throw new PgweaveError('usage', `not the address of an API: "${options.url}"`, { hint: 'Write it as http://127.0.0.1:7654.', exitCode: 2 });
    }
    const url = options.url.replace(/\/+$/, '');
    const headers: Record<string, string> = options.token === undefined ? {} : { authorization: `Bearer ${options.token}` };
    const view = applyMessage(null, (await request(url, headers, 'GET', '/changes')) as FeedMessage);
    if (!view) throw new PgweaveError('api-refused', `what answers at ${url} is not the API of this pgweave`, { hint: 'Use the same version on both sides.' });
    const { config } = (await request(url, headers, 'GET', '/config')) as { config: Record<string, unknown> };
    return new RemoteControl(url, headers, view, config);
  }

  read(): JobSnapshot {
    this.#snapshot ??= snapshotOf(this.#view);
    return this.#snapshot;
  }

  state(): ControlState {
    if (this.#lost) return { mode: 'remote', running: false, note: `${this.#url} does not answer since ${new Date(this.#lost.since).toISOString()}: ${this.#lost.why}` };
    return { mode: 'remote', running: this.#view.state.running, note: this.#view.state.note };
  }

  config(): Readonly<Record<string, unknown>> {
    return this.#config;
  }

  async history(range: HistoryRange): Promise<History> {
    return (await this.#request('GET', `/history?range=${range}`)) as History;
  }

  get actions(): JobActions | null {
    return this.canAct ? this.#actions : null;
  }

  /** Whether actions can be asked for at the other end. */
  get canAct(): boolean {
    return this.#lost === null && this.#view.state.canAct;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#abort.abort();
    await this.#polling;
  }

  async #poll(): Promise<void> {
    const { signal } = this.#abort;
    while (!signal.aborted) {
      try {
        await sleep(pollEveryMs, signal);
        const query = `feed=${encodeURIComponent(this.#view.feed)}&since=${this.#view.seq}`;
        const message = (await this.#request('GET', `/changes?${query}`)) as FeedMessage | null;
        if (message) {
          // What does not fit is asked for anew: a feed that nobody knows gives everything.
          this.#view = applyMessage(this.#view, message) ?? { ...this.#view, feed: '' };
          this.#snapshot = null;
        }
        this.#lost = null;
      } catch (error) {
        if (signal.aborted) return;
        this.#lost ??= { since: Date.now(), why: errorMessage(error) };
      }
    }
  }

  async #switchover(wanted: SwitchoverRequest, signal: AbortSignal): Promise<void> {
    await this.#request('POST', '/switchover', wanted);
    const stop = () => void this.#request('POST', '/switchover/stop').catch(() => {});
    signal.addEventListener('abort', stop, { once: true });
    try {
      for (;;) {
        const { server } = (await this.#request('GET', '/status')) as { server: { switchover: SwitchoverState } };
        const { status, error } = server.switchover;
        if (status === 'done') return;
        if (error) throw new PgweaveError(error.code, error.message, error.hint === null ? {} : { hint: error.hint });
        await sleep(pollEveryMs, this.#abort.signal);
      }
    } finally {
      signal.removeEventListener('abort', stop);
    }
  }

  async #post(path: string): Promise<void> {
    await this.#request('POST', path);
  }

  #request(method: 'GET' | 'POST', path: string, body?: unknown): Promise<unknown> {
    return request(this.#url, this.#headers, method, path, body, this.#abort.signal);
  }
}

async function request(url: string, headers: Readonly<Record<string, string>>, method: 'GET' | 'POST', path: string, body?: unknown, signal?: AbortSignal): Promise<unknown> {
  let response: Response;
  const timeout = AbortSignal.timeout(requestTimeoutMs);
  try {
    response = await fetch(`${url}/api/v1${path}`, {
      method, headers: { ...headers, ...(body === undefined ? {} : { 'content-type': 'application/json' }) }, ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout, redirect: 'error',
    });
  } catch (error) {
    const why = error instanceof Error && error.cause !== undefined ? errorMessage(error.cause) : errorMessage(error);
    throw new PgweaveError('api-unreachable', `cannot reach the API at ${url}: ${why}`, { hint: 'Is the job running with --api-port? Name its address with --connect.', cause: error, retry: 'backoff' });
  }
  if (response.status === 204) return null;
  const answer: unknown = await response.json().catch(() => null);
  if (response.ok) return answer;
  const told = (answer as { error?: { code: string; message: string; hint: string | null } } | null)?.error;
  const hint = response.status === 401 ? 'Give the token of that API with --api-token or PGWEAVE_API_TOKEN.' : told?.hint;
  throw new PgweaveError(told?.code ?? 'api-refused', told?.message ?? `the API at ${url} answered ${response.status}`, hint === null || hint === undefined ? {} : { hint });
}
