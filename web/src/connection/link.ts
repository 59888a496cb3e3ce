/** How the page stands with the server. Pure: events and a clock in, state out. */

export type LinkState =
  /** Nothing has come yet. */
  | { readonly name: 'connecting'; readonly since: number; readonly tries: number }
  | { readonly name: 'live' }
  /** Connected, or about to be again, but nothing came for a while. `at`: when something came last. */
  | { readonly name: 'stale'; readonly at: number }
  | { readonly name: 'lost'; readonly since: number; readonly nextTryAt: number | null }
  /** The server wants a token, or another one. */
  | { readonly name: 'refused'; readonly tokenGiven: boolean };

export interface Link {
  readonly state: LinkState;
  /** Milliseconds since 1970 when a message came last; null before the first. */
  readonly heardAt: number | null;
  readonly open: boolean;
  readonly failures: number;
  /** When the connection broke or could not be made first. */
  readonly downSince: number | null;
  readonly nextTryAt: number | null;
}

export type LinkEvent =
  | { readonly type: 'trying' }
  | { readonly type: 'opened' }
  | { readonly type: 'message' }
  | { readonly type: 'closed'; readonly retryAt: number }
  | { readonly type: 'refused'; readonly tokenGiven: boolean }
  | { readonly type: 'tick' };

export const staleAfterMs = 5000;
export const lostAfterMs = 30_000;
export const lostAfterFailures = 3;

export function firstLink(now: number): Link {
  return { state: { name: 'connecting', since: now, tries: 0 }, heardAt: null, open: false, failures: 0, downSince: null, nextTryAt: null };
}

export function nextLink(link: Link, event: LinkEvent, now: number): Link {
  switch (event.type) {
    case 'trying':
      return judge({ ...link, nextTryAt: null, ...(link.state.name === 'refused' ? { state: { name: 'connecting', since: now, tries: 0 } as const } : {}) }, now);
    case 'opened':
      return judge({ ...link, open: true, nextTryAt: null }, now);
    case 'message':
      return judge({ ...link, open: true, heardAt: now, failures: 0, downSince: null, nextTryAt: null }, now);
    case 'closed':
      return judge({ ...link, open: false, failures: link.failures + 1, downSince: link.downSince ?? now, nextTryAt: event.retryAt }, now);
    case 'refused':
      return { ...link, open: false, state: { name: 'refused', tokenGiven: event.tokenGiven } };
    case 'tick':
      return judge(link, now);
    default:
      return event satisfies never;
  }
}

function judge(link: Link, now: number): Link {
  if (link.state.name === 'refused') return link;
  const silentFor = link.heardAt === null ? 0 : now - link.heardAt;
  if (!link.open && link.downSince !== null && (link.failures >= lostAfterFailures || now - link.downSince >= lostAfterMs)) {
    return { ...link, state: { name: 'lost', since: link.downSince, nextTryAt: link.nextTryAt } };
  }
  if (link.heardAt === null) return { ...link, state: { name: 'connecting', since: link.state.name === 'connecting' ? link.state.since : now, tries: link.failures } };
  if (silentFor >= lostAfterMs) return { ...link, state: { name: 'lost', since: link.heardAt, nextTryAt: link.nextTryAt } };
  if (silentFor >= staleAfterMs) return { ...link, state: { name: 'stale', at: link.heardAt } };
  return link.state.name === 'live' ? link : { ...link, state: { name: 'live' } };
}

/** Delay before the next try: 0.5, 1, 2, 4, then every 5 seconds. */
export function retryDelay(failures: number): number {
  return Math.min(5000, 500 * 2 ** Math.max(0, failures - 1));
}
