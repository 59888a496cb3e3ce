import { interruptedError } from './errors.ts';

/** Throws the interruption error when the signal has fired. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw signal.reason instanceof Error && signal.reason.name === 'PgweaveError' ? signal.reason : interruptedError();
}

/** Resolves after `ms` milliseconds; rejects with the interruption error as soon as the signal fires. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(interruptedError());
    const onAbort = () => {
      clearTimeout(timer);
      reject(interruptedError());
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    }, ms);
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}

/** Waits for all of them, whatever becomes of each, so that nothing goes on unseen behind an error; then throws the first error. */
export async function settleAll<T extends readonly Promise<unknown>[]>(...promises: T): Promise<{ -readonly [K in keyof T]: Awaited<T[K]> }> {
  const outcomes = await Promise.allSettled(promises);
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
  return outcomes.map((outcome) => (outcome as PromiseFulfilledResult<unknown>).value) as { -readonly [K in keyof T]: Awaited<T[K]> };
}

export interface BackoffOptions {
  readonly firstMs?: number;
  readonly maxMs?: number;
  readonly factor?: number;
}

/** Delays for retries: grows by `factor` up to `maxMs`, each with up to 20 % jitter so that many clients do not retry in step. */
export class Backoff {
  readonly #options: Required<BackoffOptions>;
  #attempt = 0;

  constructor(options: BackoffOptions = {}) {
    this.#options = { firstMs: 200, maxMs: 15_000, factor: 2, ...options };
  }

  get attempt(): number {
    return this.#attempt;
  }

  /** The next delay in milliseconds. */
  next(): number {
    const { firstMs, maxMs, factor } = this.#options;
    const base = Math.min(maxMs, firstMs * factor ** this.#attempt);
    this.#attempt += 1;
    return Math.round(base * (1 + Math.random() * 0.2));
  }

  reset(): void {
    this.#attempt = 0;
  }
}
