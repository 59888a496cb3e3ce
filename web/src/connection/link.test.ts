import { describe, expect, it } from 'vitest';
import { firstLink, nextLink, retryDelay, type Link, type LinkEvent } from './link.ts';

const run = (...steps: readonly (readonly [number, LinkEvent])[]): Link => steps.reduce((link, [now, event]) => nextLink(link, event, now), firstLink(0));
const opened = { type: 'opened' } as const;
const message = { type: 'message' } as const;
const tick = { type: 'tick' } as const;
const closed = (retryAt: number) => ({ type: 'closed', retryAt }) as const;

describe('link', () => {
  it('is live while messages come, stale after five seconds of silence, and live again', () => {
    const base = [[0, opened], [10, message]] as const;
    expect(run(...base).state).toEqual({ name: 'live' });
    expect(run(...base, [5000, tick]).state).toEqual({ name: 'live' });
    expect(run(...base, [5010, tick]).state).toEqual({ name: 'stale', at: 10 });
    expect(run(...base, [5010, tick], [6000, message]).state).toEqual({ name: 'live' });
  });

  it('is lost after three failed tries or thirty seconds, and tells since when and the next try', () => {
    const base = [[0, opened], [10, message], [1000, closed(1500)]] as const;
    expect(run(...base).state.name).toBe('live');
    expect(run(...base, [1500, { type: 'trying' }], [1600, closed(2600)], [2600, { type: 'trying' }], [2700, closed(4700)]).state).toEqual({ name: 'lost', since: 1000, nextTryAt: 4700 });
    expect(run(...base, [31_000, tick]).state.name).toBe('lost');
    expect(run([0, opened], [10, message], [40_000, tick]).state).toEqual({ name: 'lost', since: 10, nextTryAt: null });
  });

  it('comes back from lost with the first message', () => {
    expect(run([0, opened], [10, message], [20, closed(30)], [40, closed(50)], [60, closed(70)], [80, opened]).state.name).toBe('live');
    expect(run([0, closed(1)], [1, closed(2)], [2, closed(3)], [3, opened], [4, message]).state).toEqual({ name: 'live' });
    expect(run([0, closed(1)], [1, closed(2)], [2, closed(3)]).state.name).toBe('lost');
  });

  it('asks for a token and stays there until there is another try', () => {
    const refused = run([0, { type: 'refused', tokenGiven: false }], [60_000, tick]);
    expect(refused.state).toEqual({ name: 'refused', tokenGiven: false });
    expect(nextLink(refused, { type: 'trying' }, 60_001).state.name).toBe('connecting');
  });

  it('waits longer from try to try, up to five seconds', () => {
    expect([1, 2, 3, 4, 5, 50].map(retryDelay)).toEqual([500, 1000, 2000, 4000, 5000, 5000]);
  });
});
