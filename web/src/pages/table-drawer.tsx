import { useEffect, useRef, useState } from 'react';
import { isCopied, type TableStatus } from '../../../src/core/snapshot.ts';
import { formatBytes, formatCount, formatDuration } from '../../../src/core/units.ts';
import { bytesOf, clockTime } from '../../../src/core/words.ts';
import type { TableAction } from '../../../src/server/job-control.ts';
import type { JobView } from '../../../src/server/messages.ts';
import { api } from '../connection/api.ts';
import { tableName, tableWord } from '../facts.ts';
import { Icon } from '../parts/icon.tsx';
import { Bar, Button, Pairs, Refused, Tag, useDoing } from '../parts/ui.tsx';
import ui from '../parts/ui.module.css';
import styles from './tables.module.css';

interface DrawerProps { readonly table: TableStatus; readonly view: JobView; readonly current: boolean; readonly onClose: () => void }

export function TableDrawer({ table: t, view, current, onClose }: DrawerProps) {
  const close = useRef<HTMLButtonElement>(null);
  const word = tableWord(t);
  const now = Date.parse(view.summary.writtenAt);
  useEffect(() => close.current?.focus(), []);
  useEffect(() => {
    const escape = (event: globalThis.KeyboardEvent) => {
      if (event.key === 'Escape') onClose();
    };
    window.addEventListener('keydown', escape);
    return () => window.removeEventListener('keydown', escape);
  }, [onClose]);
  return (
    <aside className={styles.drawer} aria-label={`Table ${tableName(t)}`}>
      <div className={styles.drawerHead}>
        <div>
          <h2>{tableName(t)}</h2>
          <Tag tone={word.tone} icon={word.icon}>{word.word}</Tag>
          <span className={styles.since}>since {clockTime(t.stateSince, now)}, {formatDuration(Math.max(0, now - Date.parse(t.stateSince)))}</span>
        </div>
        <button ref={close} type="button" className={`${ui.button} ${ui.quiet} ${ui.square}`} aria-label="Close" onClick={onClose}><Icon name="close" /></button>
      </div>
      <div className={styles.drawerBody}>
        {t.state.name === 'paused' && (
          <div>
            <h3>What stopped it</h3>
            <p className={ui.error}>{t.state.reason}</p>
            <p className={ui.sub}>{t.state.lsn === null ? '' : <>At <span className={ui.mono}>{t.state.lsn}</span>. </>}Its changes wait; other tables go on.</p>
          </div>
        )}
        {word.fraction !== null && <Bar large fraction={word.fraction} label={word.word} />}
        <div>
          <h3>Copy</h3>
          <Pairs
            items={[
              ['Copied', bytesOf(isCopied(t.state) ? t.bytes : Math.min(t.bytesDone, t.bytes), t.bytes)], ['Rows copied', formatCount(t.rowsDone)],
              ['Rows estimated by the source', t.rows < 0 ? 'never analysed' : formatCount(t.rows)],
              ...(t.rowsPerSecond === null ? [] : ([['Rate', `${formatCount(Math.round(t.rowsPerSecond))} rows/s`]] as const)),
              ['Parts', `${formatCount(t.partsDone)} of ${formatCount(t.parts)}${t.partsRunning > 0 ? `, ${t.partsRunning} running` : ''}`], ['Indexes and keys', `${formatCount(t.indexesDone)} of ${formatCount(Math.max(t.indexes, t.indexesDone))}`],
              ...(t.state.name === 'copied' && t.state.lsn !== null ? ([['As of', <span className={ui.mono}>{t.state.lsn}</span>]] as const) : []),
            ]}
          />
        </div>
        {t.building.length > 0 && (
          <div>
            <h3>Being built now</h3>
            <Pairs items={t.building.map((b) => [b.index, `${b.phase}${b.percent === null ? '' : `, ${Math.round(b.percent)} %`}`] as const)} />
          </div>
        )}
        <div>
          <h3>Changes applied</h3>
          <Pairs items={[['Inserts', formatCount(t.inserts)], ['Updates', formatCount(t.updates)], ['Deletes', formatCount(t.deletes)]]} />
        </div>
      </div>
      {view.state.canAct && (t.state.name === 'paused' || t.state.name === 'streaming') && <Options table={t} enabled={current} />}
    </aside>
  );
}

interface Option { readonly action: TableAction; readonly title: string; readonly cost: string; readonly final: boolean }

function optionsFor(t: TableStatus): Option[] {
  const again: Option = { action: 'copy-again', title: 'Copy again', cost: `Empties the target table and copies ${formatBytes(t.bytes)} from the source anew.`, final: true };
  if (t.state.name !== 'paused') return [again];
  return [
    { action: 'retry', title: 'Retry', cost: 'Tries the same change again. Safe to repeat.', final: false },
    { action: 'skip-transaction', title: 'Skip one transaction', cost: 'Leaves out what that transaction did to this table. It will differ from the source until it is copied again.', final: true },
    again,
  ];
}

function Options({ table, enabled }: { readonly table: TableStatus; readonly enabled: boolean }) {
  const doing = useDoing();
  const [asked, setAsked] = useState<TableAction | null>(null);
  const [typed, setTyped] = useState('');
  const run = (action: TableAction) => {
    setAsked(null);
    setTyped('');
    doing.run(() => api.table(action, table.schema, table.name));
  };
  return (
    <div className={styles.drawerFoot}>
      {optionsFor(table).map(({ action, title, cost, final }, i) => (
        <div key={action} className={styles.option}>
          <div><b>{title}</b><div className={ui.sub}>{cost}</div></div>
          <Button look={i === 0 && table.state.name === 'paused' ? 'primary' : 'plain'} disabled={!enabled || doing.busy} aria-expanded={final ? asked === action : undefined} onClick={() => (final ? setAsked(asked === action ? null : action) : run(action))}>{title}</Button>
          {asked === action && (
            <form className={styles.confirm} onSubmit={(e) => { e.preventDefault(); if (typed === table.name) run(action); }}>
              <label className={ui.sub} htmlFor={`confirm-${action}`}>This cannot be undone. Type <span className={ui.mono}>{table.name}</span> to go on.</label>
              <div>
                <input id={`confirm-${action}`} className={ui.input} autoComplete="off" value={typed} onChange={(e) => setTyped(e.target.value)} />
                <Button type="submit" disabled={typed !== table.name}>{title} now</Button>
              </div>
            </form>
          )}
        </div>
      ))}
      {doing.done && <p className={ui.sub} role="status">Asked for. The state changes as soon as the job has done it.</p>}
      <Refused error={doing.error} what="That was refused." />
    </div>
  );
}
