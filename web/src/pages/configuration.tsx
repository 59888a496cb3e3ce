import { useEffect, useState } from 'react';
import { clockTime, phaseWords } from '../../../src/core/words.ts';
import type { PageProps } from '../app.tsx';
import { api, ApiError } from '../connection/api.ts';
import { Button, Pairs, Panel, Refused } from '../parts/ui.tsx';
import ui from '../parts/ui.module.css';
import styles from './overview.module.css';

const modes = { job: 'The job runs in the process that serves this page.', folder: 'This page shows what a job in another process writes to its state folder.', remote: 'This page shows a job of another pgweave, over its API.' } as const;

export function Configuration({ view }: PageProps) {
  const [config, setConfig] = useState<Record<string, unknown> | null>(null);
  const [error, setError] = useState<ApiError | null>(null);
  const [tries, setTries] = useState(0);
  useEffect(() => {
    let ended = false;
    void api.config().then(
      (got) => { if (!ended) { setConfig(got); setError(null); } },
      (reason: unknown) => { if (!ended) setError(reason instanceof ApiError ? reason : new ApiError(0, 'unexpected', String(reason), null)); },
    );
    return () => { ended = true; };
  }, [tries]);
  const { summary: s, state } = view;
  const now = Date.parse(s.writtenAt);
  return (
    <div className={styles.grid}>
      <Panel title="Configuration of the job" className={styles.c7}>
        <div className={styles.config}>
          {error && <><Refused error={error} what="The configuration could not be read." /><Button small onClick={() => setTries(tries + 1)}>Retry</Button></>}
          {config && <Pairs items={flatten(config).map(([name, value]) => [name, <span className={ui.mono}>{value}</span>] as const)} />}
          <p className={ui.hint}>Passwords and tokens are left out by the server.</p>
        </div>
      </Panel>
      <Panel title="About" className={styles.c5}>
        <div className={styles.config}>
          <p className={ui.sub}>{modes[state.mode]}</p>
          <Pairs
            items={[
              ['pgweave', state.version], ['Job', s.job], ['Command', s.command === '' ? '-' : s.command], ['Process', String(s.pid)], ['Phase', `${phaseWords[s.phase]} since ${clockTime(s.phaseSince, now)}`], ['State format', String(s.format)],
              ['API', <a className={ui.link} href="/api/docs">/api/docs</a>], ['Metrics', <a className={ui.link} href="/metrics">/metrics</a>],
            ]}
          />
        </div>
      </Panel>
    </div>
  );
}

/** `copy.jobs = 4` for nested values. */
function flatten(value: Record<string, unknown>, prefix = ''): [string, string][] {
  return Object.entries(value).flatMap(([key, item]): [string, string][] => {
    const name = prefix === '' ? key : `${prefix}.${key}`;
    if (typeof item === 'object' && item !== null && !Array.isArray(item)) return flatten(item as Record<string, unknown>, name);
    if (Array.isArray(item)) return [[name, item.length === 0 ? 'none' : item.map(String).join(', ')]];
    return [[name, typeof item === 'string' ? item : item === null || item === undefined ? 'not set' : JSON.stringify(item)]];
  });
}
