import { useEffect, useMemo, useRef, useState } from 'react';
import type { LogLine } from '../../../src/core/snapshot.ts';
import { formatCount } from '../../../src/core/units.ts';
import type { PageProps } from '../app.tsx';
import { Choice, type Tone } from '../parts/ui.tsx';
import ui from '../parts/ui.module.css';
import styles from './logs.module.css';

const levels: readonly LogLine['level'][] = ['debug', 'info', 'warn', 'error'];
const choices = [['debug', 'All'], ['info', 'Info'], ['warn', 'Warnings'], ['error', 'Errors']] as const;
const words: Readonly<Record<LogLine['level'], readonly [string, Tone]>> = { debug: ['debug', 'idle'], info: ['info', 'idle'], warn: ['warning', 'warn'], error: ['error', 'bad'] };

export function Logs({ view }: PageProps) {
  const [level, setLevel] = useState<LogLine['level']>('debug');
  const [search, setSearch] = useState('');
  const [follow, setFollow] = useState(true);
  const box = useRef<HTMLDivElement>(null);
  const lines = useMemo(() => {
    const wanted = search.trim().toLowerCase();
    return view.log.filter((l) => levels.indexOf(l.level) >= levels.indexOf(level) && (wanted === '' || l.message.toLowerCase().includes(wanted)));
  }, [view.log, level, search]);

  useEffect(() => {
    if (follow && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [lines, follow]);
  // Whoever scrolls up reads; whoever comes back to the end follows again.
  const onScroll = () => {
    const { scrollTop, clientHeight, scrollHeight } = box.current!;
    setFollow(scrollHeight - scrollTop - clientHeight < 24);
  };

  return (
    <>
      <div className={styles.tools}>
        <label className={ui.hidden} htmlFor="log-search">Search the log</label>
        <input id="log-search" className={ui.input} type="search" placeholder="Search the log" autoComplete="off" value={search} onChange={(e) => setSearch(e.target.value)} />
        <Choice label="Least level" options={choices} value={level} onChange={setLevel} />
        <label className={styles.follow}><input type="checkbox" checked={follow} onChange={(e) => setFollow(e.target.checked)} />Follow</label>
        <span className={ui.sub}>{formatCount(lines.length)} of the newest {formatCount(view.log.length)} lines</span>
      </div>
      <div ref={box} className={styles.box} role="log" aria-label="Log" aria-live="off" tabIndex={0} onScroll={onScroll}>
        {lines.length === 0 && <p className={styles.none}>{view.log.length === 0 ? 'Nothing was logged yet.' : 'No line matches.'}</p>}
        {lines.map((line) => {
          const [word, tone] = words[line.level];
          return <div key={line.n} className={styles.line}><span>{line.at.slice(11, 19)}</span><span className={ui[tone]}>{word}</span><span>{line.message}</span></div>;
        })}
      </div>
    </>
  );
}
