import type { History, HistoryRange } from '../../../src/server/history.ts';
import type { CheckResult, SwitchoverRequest, TableAction } from '../../../src/server/job-control.ts';
import type { JobState } from '../../../src/server/messages.ts';

/** The REST part of the API. A refusal is an ApiError with the server's own words. */
export class ApiError extends Error {
  readonly code: string;
  readonly hint: string | null;
  readonly status: number;

  constructor(status: number, code: string, message: string, hint: string | null) {
    super(message);
    this.name = 'ApiError';
    this.status = status;
    this.code = code;
    this.hint = hint;
  }
}

const tokenKey = 'pgweave-token';

/** Kept for this tab only. A link may bring it behind `#token=`, which browsers send to nobody. */
export function takeTokenFromAddress(): void {
  const match = /^#token=([^&]+)/.exec(location.hash);
  if (!match) return;
  setToken(decodeURIComponent(match[1]!));
  history.replaceState(null, '', location.pathname + location.search);
}

export function getToken(): string | null {
  return sessionStorage.getItem(tokenKey);
}

export function setToken(token: string): void {
  sessionStorage.setItem(tokenKey, token);
}

async function request<T>(method: 'GET' | 'POST', path: string, body?: unknown): Promise<T> {
  const token = getToken();
  let response: Response;
  try {
    response = await fetch(`/api/v1${path}`, {
      method, headers: { ...(token === null ? {} : { authorization: `Bearer ${token}` }), ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }), signal: AbortSignal.timeout(30_000),
    });
  } catch (error) {
    throw new ApiError(0, 'unreachable', 'pgweave did not answer', error instanceof Error ? error.message : null);
  }
  const answer: unknown = await response.json().catch(() => null);
  if (response.ok) return answer as T;
  const told = (answer as { error?: { code: string; message: string; hint: string | null } } | null)?.error;
  throw new ApiError(response.status, told?.code ?? 'refused', told?.message ?? `pgweave answered ${response.status}`, told?.hint ?? null);
}

const tablePath = (schema: string, name: string) => `/tables/${encodeURIComponent(schema)}/${encodeURIComponent(name)}`;

export const api = {
  status: () => request<{ server: JobState }>('GET', '/status'),
  history: (range: HistoryRange) => request<History>('GET', `/history?range=${range}`),
  config: async () => (await request<{ config: Record<string, unknown> }>('GET', '/config')).config,
  checks: async () => (await request<{ checks: CheckResult[] | null }>('GET', '/switchover/checks')).checks,
  pause: () => request<unknown>('POST', '/pause'),
  resume: () => request<unknown>('POST', '/resume'),
  switchover: (options: SwitchoverRequest) => request<unknown>('POST', '/switchover', options),
  stopSwitchover: () => request<unknown>('POST', '/switchover/stop'),
  table: (action: TableAction, schema: string, name: string) => request<unknown>('POST', `${tablePath(schema, name)}/${action}`),
};
