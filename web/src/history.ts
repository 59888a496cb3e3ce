import { useEffect, useState } from 'react';
import type { History, HistoryRange } from '../../src/server/history.ts';
import { api } from './connection/api.ts';

const everyMs: Readonly<Record<HistoryRange, number>> = { '15m': 2000, '1h': 10_000, '6h': 30_000, all: 60_000 };

/** The history of a range, fetched anew as often as it can have grown. Null until it is there. */
export function useHistory(range: HistoryRange, current: boolean): History | null {
  const [history, setHistory] = useState<History | null>(null);
  useEffect(() => {
    let ended = false;
    let timer = 0;
    const get = async () => {
      // What fails is asked for again; the connection's state is told elsewhere.
      const got = await api.history(range).catch(() => null);
      if (ended) return;
      if (got) setHistory(got);
      if (current) timer = window.setTimeout(() => void get(), everyMs[range]);
    };
    void get();
    return () => {
      ended = true;
      window.clearTimeout(timer);
    };
  }, [range, current]);
  return history;
}
