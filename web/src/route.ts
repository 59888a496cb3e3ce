import { useEffect, useState } from 'react';

export const pages = ['overview', 'tables', 'switchover', 'fan-out', 'mesh', 'logs', 'configuration'] as const;
export type Page = (typeof pages)[number];

export interface Route {
  readonly page: Page;
  readonly query: URLSearchParams;
}

/** The address behind `#`: the server serves one page whatever the route. */
export function readRoute(hash: string): Route {
  const [path = '', query = ''] = hash.replace(/^#\/?/, '').split('?');
  const page = pages.find((name) => name === path) ?? 'overview';
  return { page, query: new URLSearchParams(query) };
}

export function useRoute(): Route {
  const [route, setRoute] = useState(() => readRoute(location.hash));
  useEffect(() => {
    const change = () => setRoute(readRoute(location.hash));
    window.addEventListener('hashchange', change);
    return () => window.removeEventListener('hashchange', change);
  }, []);
  return route;
}
