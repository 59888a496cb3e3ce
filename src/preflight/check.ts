export type Side = 'source' | 'target';
export type CheckStatus = 'ok' | 'warn' | 'fail';

/** What puts a check right. */
export interface Fix {
  readonly on: Side | 'pgweave';
  /** `sql`: run it there; `configuration`: a setting or a provider's command; `flag`: give it to pgweave; `advice`: words. */
  readonly kind: 'sql' | 'configuration' | 'flag' | 'advice';
  readonly text: string;
}

/** One of several things that a check is about: a table, a role, a transaction. */
export interface CheckItem {
  readonly subject: string;
  readonly note: string;
  readonly fix?: Fix;
}

/** One answer of preflight. */
export interface Check {
  /** Kebab-case and stable; docs/validate.md lists them. */
  readonly id: string;
  readonly side: Side | 'both';
  readonly status: CheckStatus;
  /** One line for people. */
  readonly summary: string;
  /** The figures behind it, for `--json`. */
  readonly facts: Readonly<Record<string, unknown>>;
  readonly items: readonly CheckItem[];
  readonly fix: readonly Fix[];
}

export interface CheckParts {
  readonly facts?: Readonly<Record<string, unknown>>;
  readonly items?: readonly CheckItem[];
  readonly fix?: Fix | readonly Fix[];
}

export function check(id: string, side: Check['side'], status: CheckStatus, summary: string, parts: CheckParts = {}): Check {
  const fix = parts.fix === undefined ? [] : Array.isArray(parts.fix) ? (parts.fix as readonly Fix[]) : [parts.fix as Fix];
  return { id, side, status, summary, facts: parts.facts ?? {}, items: parts.items ?? [], fix };
}

export function sqlFix(on: Side, text: string): Fix {
  return { on, kind: 'sql', text };
}

export function configurationFix(on: Side, text: string): Fix {
  return { on, kind: 'configuration', text };
}

export function advice(on: Fix['on'], text: string): Fix {
  return { on, kind: 'advice', text };
}

export function flagFix(text: string): Fix {
  return { on: 'pgweave', kind: 'flag', text };
}

/** `1 table`, `1,204 tables`; `plural` where it is no plain s. */
export function counted(n: number | bigint, noun: string, plural = `${noun}s`): string {
  return `${n.toLocaleString('en-US')} ${Number(n) === 1 ? noun : plural}`;
}
