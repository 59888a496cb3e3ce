import { redact } from './redact.ts';

/** Whether trying again can help: never, after a person acted, or by itself after a pause. */
export type Retry = 'never' | 'manual' | 'backoff';

/** Process exit codes of the command line (docs/exit-codes.md). */
export const exitCodes = {
  done: 0,
  failed: 1,
  usage: 2,
  /** A check said no: validate, verify, compare, mesh status. */
  checkFailed: 3,
  interrupted: 130,
} as const;

export interface PgweaveErrorOptions {
  /** What the user can do now, one or two sentences, SQL or a command where there is one. */
  readonly hint?: string;
  readonly retry?: Retry;
  readonly exitCode?: number;
  readonly cause?: unknown;
  /** Facts for logs and `--json`; secrets are removed. */
  readonly details?: Readonly<Record<string, unknown>>;
}

/**
 * The one error that a user may see. `code` is kebab-case and stable (docs/errors.md lists them);
 * `message` says what was wrong and where; `hint` what to do now. Neither ever holds a secret.
 */
export class PgweaveError extends Error {
  readonly code: string;
  readonly hint: string | undefined;
  readonly retry: Retry;
  readonly exitCode: number;
  readonly details: Readonly<Record<string, unknown>>;

  constructor(code: string, message: string, options: PgweaveErrorOptions = {}) {
    super(redact(message), options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'PgweaveError';
    this.code = code;
    this.hint = options.hint === undefined ? undefined : redact(options.hint);
    this.retry = options.retry ?? 'manual';
    this.exitCode = options.exitCode ?? exitCodes.failed;
    this.details = options.details ?? {};
  }
}

/** Wrong flags or configuration: exit code 2. */
export function usageError(message: string, hint?: string): PgweaveError {
  return new PgweaveError('usage', message, { ...(hint === undefined ? {} : { hint }), retry: 'never', exitCode: exitCodes.usage });
}

/** The run was stopped on request (Ctrl-C, SIGTERM, an AbortSignal); state is kept: exit code 130. */
export function interruptedError(hint = 'State is kept. Go on with the same command.'): PgweaveError {
  return new PgweaveError('interrupted', 'interrupted', { hint, exitCode: exitCodes.interrupted });
}

export function isInterrupted(error: unknown): boolean {
  return error instanceof PgweaveError && error.code === 'interrupted';
}

/** The message of anything thrown, with secrets removed. */
export function errorMessage(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return redact([...new Set(error.errors.map(errorMessage))].join('; '));
  return redact(error instanceof Error ? error.message || error.name : String(error));
}
