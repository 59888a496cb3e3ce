import { createHmac } from 'node:crypto';
import { Backoff, sleep } from '../core/abort.ts';
import type { Phase } from '../core/events.ts';
import { errorMessage, PgweaveError, usageError } from '../core/errors.ts';
import type { Log } from '../core/log.ts';
import { redact, rememberSecret } from '../core/redact.ts';
import type { JobSnapshot } from '../core/snapshot.ts';
import { formatBytes, formatDuration } from '../core/units.ts';
import { phaseWords } from '../core/words.ts';

export interface WebhookOptions {
  readonly url: string;
  /** Signs each body: header `pgweave-signature: sha256=<hex of HMAC-SHA256>`. */
  readonly secret?: string | undefined;
  /** Tells when the lag goes over this, and when it is under it again; milliseconds. */
  readonly lagLimitMs?: number | undefined;
  readonly lagLimitBytes?: number | undefined;
  readonly log?: Log;
}

/** What is sent as JSON. `text` says it in a sentence, under the name that chat programs read. */
export interface WebhookMessage {
  readonly event: 'phase' | 'failed' | 'table-paused' | 'lag-over-limit' | 'lag-under-limit' | 'slot-lost';
  readonly text: string;
  readonly job: string;
  readonly at: string;
  readonly phase: Phase;
  readonly lagMs: number | null;
  readonly lagBytes: number | null;
  readonly error: JobSnapshot['error'];
}

const lookEveryMs = 1000;
const sendTimeoutMs = 5000;
const tries = 4;
/** A receiver that is away for long gets the newest; older news is of no use. */
const mostWaiting = 50;
/** The lag has to fall to this share of the limit before it counts as under it, so that a lag around the limit does not ring all day. */
const calmShare = 0.8;

/** Tells another program of phase changes, failures, paused tables and lag. Looks at the snapshot once a second; never holds the job up. */
export class Webhook implements AsyncDisposable {
  readonly #options: WebhookOptions;
  readonly #read: () => JobSnapshot;
  readonly #timer: NodeJS.Timeout;
  readonly #abort = new AbortController();
  readonly #news: WebhookNews;
  #waiting: WebhookMessage[] = [];
  #sending: Promise<void> | null = null;

  constructor(options: WebhookOptions, read: () => JobSnapshot) {
    if (!URL.canParse(options.url) || !/^https?:$/.test(new URL(options.url).protocol)) throw usageError('the webhook is not an http or https URL', 'Write it as https://host/path.');
    // Chat programs put their secret into the path.
    const { pathname, search, password } = new URL(options.url);
    rememberSecret(pathname.length > 8 ? pathname : undefined);
    rememberSecret(search.length > 8 ? search : undefined);
    rememberSecret(password);
    rememberSecret(options.secret);
    this.#options = options;
    this.#read = read;
    this.#news = new WebhookNews(options);
    this.#timer = setInterval(() => this.look(), lookEveryMs);
    this.#timer.unref();
  }

  /** Looks now and begins to send what is new. */
  look(): void {
    this.#waiting = [...this.#waiting, ...this.#news.since(this.#read())].slice(-mostWaiting);
    this.#sending ??= this.#sendAll().finally(() => {
      this.#sending = null;
    });
  }

  /** Sends what is left, for at most five seconds. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    this.look();
    const deadline = setTimeout(() => this.#abort.abort(), sendTimeoutMs);
    await this.#sending;
    clearTimeout(deadline);
  }

  async #sendAll(): Promise<void> {
    for (let message = this.#waiting.shift(); message; message = this.#waiting.shift()) {
      try {
        await this.#send(message);
      } catch (error) {
        this.#options.log?.warn({ event: message.event }, `the webhook did not take a message: ${errorMessage(error)}`);
      }
    }
  }

  async #send(message: WebhookMessage): Promise<void> {
    const body = redact(JSON.stringify(message));
    const { secret, url } = this.#options;
    const headers: Record<string, string> = { 'content-type': 'application/json', 'user-agent': 'pgweave' };
    if (secret !== undefined) headers['pgweave-signature'] = `sha256=${createHmac('sha256', secret).update(body).digest('hex')}`;
    const backoff = new Backoff({ firstMs: 500, maxMs: 10_000 });
    for (let attempt = 1; ; attempt += 1) {
      const problem = await this.#post(url, headers, body);
      if (problem === null) return;
      if (attempt >= tries || this.#abort.signal.aborted) throw new PgweaveError('webhook', problem);
      await sleep(backoff.next(), this.#abort.signal);
    }
  }

  /** What went wrong, or null. */
  async #post(url: string, headers: Readonly<Record<string, string>>, body: string): Promise<string | null> {
    try {
      const response = await fetch(url, { method: 'POST', headers, body, redirect: 'error', signal: AbortSignal.any([this.#abort.signal, AbortSignal.timeout(sendTimeoutMs)]) });
      await response.body?.cancel();
      return response.ok ? null : `it answered ${response.status}`;
    } catch (error) {
      return error instanceof Error && error.cause !== undefined ? errorMessage(error.cause) : errorMessage(error);
    }
  }
}

/** What is worth telling between one snapshot and the next. No I/O. */
export class WebhookNews {
  readonly #options: Pick<WebhookOptions, 'lagLimitMs' | 'lagLimitBytes'>;
  #lastPhase: string | null = null;
  #paused = new Set<string>();
  #failed = false;
  #over = false;
  #lost = false;

  constructor(options: Pick<WebhookOptions, 'lagLimitMs' | 'lagLimitBytes'>) {
    this.#options = options;
  }

  since(s: JobSnapshot): WebhookMessage[] {
    const news: WebhookMessage[] = [];
    const tell = (event: WebhookMessage['event'], what: string, phase: Phase = s.phase, at = s.writtenAt) => {
      news.push({ event, text: `pgweave job ${s.job}: ${what}`, job: s.job, at, phase, lagMs: s.stream?.lagMs ?? null, lagBytes: s.stream?.lagBytes ?? null, error: s.error });
    };
    for (const { phase, since } of s.phases) if (this.#lastPhase !== null && since > this.#lastPhase && phase !== 'failed') tell('phase', phaseWords[phase], phase, since);
    this.#lastPhase = s.phases.at(-1)?.since ?? '';
    if (s.phase === 'failed' && !this.#failed) tell('failed', `failed${s.error ? `: ${s.error.message}` : ''}`);
    this.#failed = s.phase === 'failed';
    const paused = s.tables.filter((t) => t.state.name === 'paused');
    for (const t of paused) if (t.state.name === 'paused' && !this.#paused.has(`${t.schema}.${t.name}`)) tell('table-paused', `table ${t.schema}.${t.name} is paused: ${t.state.reason}`);
    this.#paused = new Set(paused.map((t) => `${t.schema}.${t.name}`));
    this.#lookAtLag(s, tell);
    const lost = s.slot?.walStatus === 'lost';
    if (lost && !this.#lost) tell('slot-lost', `slot ${s.slot!.slot} is lost: the source removed WAL that was still needed`);
    this.#lost = lost;
    return news;
  }

  #lookAtLag(s: JobSnapshot, tell: (event: WebhookMessage['event'], what: string) => void): void {
    if (!s.stream) return;
    const { lagLimitMs = Infinity, lagLimitBytes = Infinity } = this.#options;
    const { lagMs, lagBytes } = s.stream;
    const said = `lag ${formatBytes(lagBytes)}${lagMs === null ? '' : `, ${formatDuration(lagMs)}`}`;
    if (!this.#over && ((lagMs ?? 0) > lagLimitMs || lagBytes > lagLimitBytes)) {
      this.#over = true;
      tell('lag-over-limit', `${said} is over the limit`);
    } else if (this.#over && (lagMs ?? 0) <= lagLimitMs * calmShare && lagBytes <= lagLimitBytes * calmShare) {
      this.#over = false;
      tell('lag-under-limit', `${said} is under the limit again`);
    }
  }
}
