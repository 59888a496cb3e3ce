import { useState } from 'react';
import type { ServerFacts } from '../../../src/core/events.ts';
import { formatBytes, formatCount, formatDuration } from '../../../src/core/units.ts';
import { isOnWayBack } from '../../../src/core/way-back.ts';
import { bytesOf, clockTime, percentOf, phaseWords } from '../../../src/core/words.ts';
import type { History, HistoryRange } from '../../../src/server/history.ts';
import type { PageProps } from '../app.tsx';
import { api } from '../connection/api.ts';
import { copyEstimate, countTables, jobSteps, longestCopies, nextAction, slotWord, tableName, tableWord, type TableFilter } from '../facts.ts';
import { useHistory } from '../history.ts';
import { Chart, Spark, type ChartProps } from '../parts/chart.tsx';
import { Icon, type IconName } from '../parts/icon.tsx';
import { Bar, Button, Choice, Figure, join, LinkButton, Pairs, Panel, Refused, State, Tag, useDoing, type Tone } from '../parts/ui.tsx';
import ui from '../parts/ui.module.css';
import styles from './overview.module.css';

export function Overview(props: PageProps) {
  const [range, setRange] = useState<HistoryRange>('15m');
  const recent = useHistory('15m', props.current);
  const chosen = useHistory(range, props.current);
  const { summary } = props.view;
  return (
    <>
      <Steps {...props} />
      <div className={styles.grid}>
        <Progress {...props} history={recent} />
        <Next {...props} />
        <Charts {...props} history={chosen} range={range} onRange={setRange} />
        <Slot {...props} history={chosen} />
        <Attention {...props} />
        {!summary.topology && summary.source && summary.target && <Servers {...props} source={summary.source} target={summary.target} />}
        <Warnings {...props} />
      </div>
    </>
  );
}

function Steps({ view, current }: PageProps) {
  return (
    <ol className={styles.steps} aria-label="The way of this job">
      {jobSteps(view.summary).map((step) => (
        <li key={step.name} className={styles[step.status]} aria-current={step.status === 'now' ? 'step' : undefined}>
          <span className={ui[step.tone]}><Icon name={step.icon} spin={current && step.status === 'now' && step.icon === 'copying'} /></span>
          <b>{step.name}</b>
          <span className={styles.detail}>{step.detail}</span>
        </li>
      ))}
    </ol>
  );
}

const legend: readonly (readonly [TableFilter, Tone, IconName, string])[] = [
  ['paused', 'warn', 'pause', 'Paused'], ['copying', 'run', 'copying', 'Copying'], ['indexes', 'idx', 'indexes', 'Indexes'], ['pending', 'idle', 'pending', 'Pending'], ['copied', 'ok', 'ok', 'Copied'],
  ['streaming', 'ok', 'streaming', 'Streaming'],
];

function Progress({ view, current, history }: PageProps & { readonly history: History | null }) {
  const { summary: s } = view;
  // Tables where none has a size: a job that only follows did not plan them.
  const [done, total] = s.totals.bytes > 0 ? [s.totals.bytesDone, s.totals.bytes] : [s.totals.tablesCopied + s.totals.tablesStreaming + s.totals.tablesPaused, s.totals.tables];
  const percent = percentOf(done, total);
  const estimate = copyEstimate(s, history);
  const counts = countTables(view.tables);
  const pausing = useDoing();
  const canPause = current && view.state.canAct && ['copying', 'indexes', 'catching-up', 'streaming'].includes(s.phase);
  const elapsed = Date.parse(s.writtenAt) - Date.parse(s.startedAt);
  return (
    <Panel title="Progress" className={styles.c8} aside={<>Started {clockTime(s.startedAt, Date.parse(s.writtenAt))}, running {formatDuration(elapsed)}{canPause && <Button small disabled={pausing.busy} onClick={() => pausing.run(api.pause)}>Pause</Button>}</>}>
      <div className={styles.numbers}>
        <div>
          <div className={ui.sub}>Copied</div>
          <Figure size="big" text={percent === null ? '-' : `${percent} %`} />
          <div className={ui.sub}>{s.totals.bytes > 0 ? bytesOf(done, total) : total > 0 ? `${formatCount(done)} of ${formatCount(total)} tables` : 'Not known yet'}</div>
        </div>
        {s.stream ? (
          <div>
            <div className={ui.sub}>Lag</div>
            <Figure size="big" text={s.stream.lagMs === null ? '-' : formatDuration(s.stream.lagMs)} />
            <div className={ui.sub}>{formatBytes(s.stream.lagBytes)} not applied</div>
          </div>
        ) : (
          <div>
            <div className={ui.sub}>Copy ends in about</div>
            <Figure size="big" text={estimate?.text ?? '-'} />
            <div className={ui.sub}>{estimate ? (estimate.range ?? '') : s.phase === 'copying' ? 'Not known yet' : ''}</div>
          </div>
        )}
        <div>
          <div className={ui.sub}>{s.stream ? 'Applied since the start' : 'What is left'}</div>
          {s.stream ? (
            <Pairs items={[['Transactions', formatCount(s.stream.transactions)], ['Rows', formatCount(s.stream.rows)], ['Reconnects', formatCount(s.counters.reconnects)], ['Conflicts', formatCount(s.counters.conflicts)]]} />
          ) : (
            <Pairs items={[['Data', formatBytes(s.totals.bytes - s.totals.bytesDone)], ['Tables', formatCount(s.totals.tables - s.totals.tablesCopied - s.totals.tablesStreaming - s.totals.tablesPaused)], ['Indexes', formatCount(Math.max(0, s.totals.indexes - s.totals.indexesDone))]]} />
          )}
        </div>
      </div>
      <Bar className={styles.bar} large fraction={total > 0 ? done / total : 0} label={percent === null ? 'Copied: not known yet' : `Copied ${percent} percent`} />
      {estimate && <div className={join(styles.estimate, ui.hint)}>{estimate.basis} Indexes come after that.</div>}
      <Refused error={pausing.error} what="The job was not paused." />
      <div className={styles.counts}>
        <span className={ui.sub}>{formatCount(counts.all)} tables</span>
        {legend.filter(([key]) => counts[key] > 0).map(([key, tone, icon, word]) => (
          <a key={key} href={`#/tables?state=${key}`}><State tone={tone} icon={icon}>{word}</State> <b>{formatCount(counts[key])}</b></a>
        ))}
      </div>
    </Panel>
  );
}

function Next({ view, lost, onTry, current }: PageProps) {
  const resuming = useDoing();
  const next = nextAction(view);
  if (lost) {
    return (
      <Panel title="Next action" className={join(styles.c4, styles.first)}>
        <div className={styles.next}>
          <p className={styles.lead}>Connect again</p>
          <p className={ui.sub}>pgweave does not answer. What is shown is old, so nothing can be asked for from here.</p>
          <Button look="primary" onClick={onTry}>Try now</Button>
        </div>
      </Panel>
    );
  }
  const { button } = next;
  return (
    <Panel title="Next action" className={join(styles.c4, styles.first)}>
      <div className={styles.next}>
        <p className={styles.lead}>{next.lead}</p>
        {next.error !== undefined && <p className={ui.error}>{next.error}</p>}
        <p className={ui.sub}>{next.text}</p>
        {button && 'href' in button && <LinkButton primary href={button.href}>{button.label}</LinkButton>}
        {button && 'action' in button && <Button look="primary" disabled={!current || resuming.busy} onClick={() => resuming.run(api.resume)}>{button.label}</Button>}
        <Refused error={resuming.error} what="The job was not resumed." />
      </div>
    </Panel>
  );
}

const ranges = [['15m', '15 min'], ['1h', '1 h'], ['6h', '6 h'], ['all', 'All']] as const;

function Charts({ view, history, range, onRange }: PageProps & { readonly history: History | null; readonly range: HistoryRange; readonly onRange: (range: HistoryRange) => void }) {
  const { summary: s } = view;
  const paused = s.totals.tablesPaused;
  const rate = (value: number | null) => (value === null ? '-' : `${formatCount(Math.round(value))} rows/s`);
  const copying = s.phase === 'copying' ? s.rates.copyBytesPerSecond : null;
  const perSecond = (v: number) => `${formatBytes(v)}/s`;
  const rows = (v: number) => (v >= 1000 ? `${formatCount(Math.round(v / 100) / 10)}k/s` : `${formatCount(Math.round(v * 10) / 10)}/s`);
  const charts: (Omit<ChartProps, 'at' | 'events'>)[] = [
    { title: 'Lag in time, commit to commit', tone: 'run', now: s.stream?.lagMs === null || !s.stream ? '-' : formatDuration(s.stream.lagMs), values: history?.series.lagMs ?? [], format: formatDuration },
    { title: 'Lag in bytes', tone: 'run', binary: true, now: s.stream ? formatBytes(s.stream.lagBytes) : '-', values: history?.series.lagBytes ?? [], format: formatBytes },
    { title: 'Copy rate', tone: 'run', binary: true, now: copying === null ? '-' : perSecond(copying), values: history?.series.copyBytesPerSecond ?? [], format: perSecond },
    { title: 'Changes applied', tone: 'ok', now: s.stream ? rate(s.rates.appliedRowsPerSecond) : '-', values: history?.series.appliedRowsPerSecond ?? [], format: rows },
  ];
  const shown = charts.filter((chart) => chart.values.some((v) => v !== null));
  return (
    <Panel title="Lag and throughput" className={styles.c8} aside={<>{paused > 0 && `Lag leaves out ${formatCount(paused)} paused ${paused === 1 ? 'table' : 'tables'}`}<Choice label="Range" options={ranges} value={range} onChange={onRange} /></>}>
      <div className={join(styles.charts, shown.length === 1 && styles.alone)}>
        {shown.map((chart) => <Chart key={chart.title} at={history?.at ?? []} events={history?.events ?? []} {...chart} />)}
      </div>
      {shown.length < charts.length && <p className={ui.hint}>Not measured in this range: {charts.filter((c) => !shown.includes(c)).map((c) => c.title.toLowerCase()).join(', ')}.</p>}
    </Panel>
  );
}

function Slot({ view, history }: PageProps & { readonly history: History | null }) {
  const { slot, stream } = view.summary;
  if (!slot) {
    return (
      <Panel title="Source slot" className={styles.c4}>
        <p className={ui.sub}>{['preparing', 'schema', 'copying', 'indexes', 'finishing'].includes(view.summary.phase) ? 'No slot is watched now. With --follow or --sync one is made before the copy; without, none is left on the source.' : 'No slot is watched. A copy without --follow or --sync leaves none on the source.'}</p>
      </Panel>
    );
  }
  const word = slotWord(slot);
  const room = slot.safeBytes === null ? null : Math.max(0, slot.safeBytes);
  const share = room === null ? 0 : slot.retainedBytes / Math.max(1, slot.retainedBytes + room);
  const tone = word.tone === 'ok' ? 'run' : word.tone;
  return (
    <Panel title="Source slot" className={styles.c4} aside={<Tag tone={word.tone} icon={word.icon}>{word.word}</Tag>}>
      <div className={styles.slot}>
        <div className={styles.two}>
          <div><div className={ui.sub}>Room left</div><Figure size="mid" text={room === null ? 'No limit' : formatBytes(room)} /></div>
          <div><div className={ui.sub}>Retained WAL</div><Figure size="mid" text={formatBytes(slot.retainedBytes)} /></div>
        </div>
        {room !== null && <Bar fraction={share} tone={tone} label={`Retained WAL ${formatBytes(slot.retainedBytes)}, room for ${formatBytes(room)}`} />}
        {word.why !== null && <div className={styles.why}><span className={ui[word.tone === 'ok' ? 'idle' : word.tone]}><Icon name={word.tone === 'ok' ? 'clock' : word.icon} /></span><span>{word.why}</span></div>}
        {history && <Spark values={history.series.retainedBytes} tone={word.tone === 'warn' ? 'warn' : word.tone === 'bad' ? 'bad' : 'ink-2'} label="Retained WAL over the chosen range" />}
        <Pairs
          items={[
            ['Slot', <span className={ui.mono}>{slot.slot}</span>], ['wal_status', <span className={ui.mono}>{slot.walStatus}</span>],
            ...(stream ? ([['Source now', <span className={ui.mono}>{stream.sourceLsn}</span>], ['Received', <span className={ui.mono}>{stream.receivedLsn}</span>], ['Applied', <span className={ui.mono}>{stream.appliedLsn}</span>]] as const) : []),
            ...(stream?.spoolBytes ? ([['In the spool', formatBytes(stream.spoolBytes)]] as const) : []),
          ]}
        />
      </div>
    </Panel>
  );
}

function Attention({ view }: PageProps) {
  const paused = view.tables.filter((t) => t.state.name === 'paused').slice(0, 5);
  const copies = longestCopies(view.tables, Math.max(0, 5 - paused.length));
  const now = Date.parse(view.summary.writtenAt);
  const wide = view.summary.topology !== undefined || !view.summary.source;
  return (
    <Panel title="Tables that need attention" bare className={wide ? styles.c12 : styles.c7} aside={<a className={ui.link} href="#/tables">All {formatCount(view.tables.length)} tables</a>}>
      {paused.length + copies.length === 0 ? <p className={styles.calm}>No table needs you now.</p> : (
        <ul className={styles.attention}>
          {[...paused, ...copies].map((t) => {
            const word = tableWord(t);
            const isPaused = t.state.name === 'paused';
            return (
              <li key={tableName(t)}>
                <span className={styles.status}><State tone={word.tone} icon={word.icon}>{word.word}</State></span>
                <span className={join(styles.name, ui.mono)}>{tableName(t)}</span>
                <span className={styles.what}>{t.state.name === 'paused' ? t.state.reason : `${bytesOf(Math.min(t.bytesDone, t.bytes), t.bytes)}${t.rowsPerSecond === null ? '' : `, ${formatCount(Math.round(t.rowsPerSecond))} rows/s`}`}</span>
                <span className={styles.age}>{formatDuration(Math.max(0, now - Date.parse(t.stateSince)))}</span>
                <LinkButton small href={`#/tables?open=${encodeURIComponent(t.schema)}&name=${encodeURIComponent(t.name)}`} label={`${isPaused ? 'Review' : 'Open'} ${tableName(t)}`}>{isPaused ? 'Review' : 'Open'}</LinkButton>
              </li>
            );
          })}
        </ul>
      )}
    </Panel>
  );
}

/** Source and target, and what runs between them. */
function Servers({ view, current, source, target }: PageProps & { readonly source: ServerFacts; readonly target: ServerFacts }) {
  const { stream, phase, rates } = view.summary;
  const switched = phase === 'switched-over';
  const back = isOnWayBack(view.summary);
  const moves = current && ((phase === 'copying' && (rates.copyBytesPerSecond ?? 0) > 0) || (rates.appliedRowsPerSecond ?? 0) > 0) && !switched;
  const strong = stream?.lagMs !== null && stream ? formatDuration(stream.lagMs) : phase === 'copying' && rates.copyBytesPerSecond !== null ? `${formatBytes(rates.copyBytesPerSecond)}/s` : '';
  return (
    <Panel title="Topology" className={styles.c5} aside={current ? null : <Tag tone="idle" icon="clock">Not current</Tag>}>
      <div className={styles.pair}>
        <Server role={view.summary.writesRefused?.until === null ? 'Source, refuses writes' : back ? 'New primary, takes writes' : 'Source'} server={source} />
        <div className={styles.edge} role="img" aria-label={`Source to target: ${stream ? `lag ${strong}, ${formatBytes(stream.lagBytes)}` : `${phaseWords[phase]} ${strong}`}`}>
          <strong>{strong}</strong>
          <svg viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true"><path d="M0 6H98M92 1l6 5-6 5" className={moves ? styles.flow : current ? undefined : styles.dashed} /></svg>
          <span className={ui.sub}>{stream ? formatBytes(stream.lagBytes) : phaseWords[phase]}</span>
        </div>
        <Server role={back ? 'Old source, follows' : switched ? 'Target, takes writes' : 'Target'} server={target} />
      </div>
    </Panel>
  );
}

function Server({ role, server }: { readonly role: string; readonly server: ServerFacts }) {
  return (
    <div className={styles.node}>
      <div className={ui.hint}>{role}</div>
      <b>{server.host}</b>
      <div className={ui.sub}>{server.database}, port {server.port}<br />PostgreSQL {server.version}<br />{server.provider}</div>
    </div>
  );
}

function Warnings({ view }: PageProps) {
  const { warnings } = view.summary;
  if (warnings.length === 0) return null;
  const now = Date.parse(view.summary.writtenAt);
  return (
    <Panel title="Warnings" bare className={styles.c12} aside={warnings.length > 5 ? `The newest 5 of ${formatCount(warnings.length)}` : undefined}>
      <ul className={styles.warnings}>
        {warnings.slice(-5).reverse().map((w, i) => (
          <li key={`${w.at}${i}`}>
            <Icon name="warn" />
            <span>{w.message}{w.hint !== null && <span className={ui.sub}><br />{w.hint}</span>}</span>
            <span className={ui.sub}>{clockTime(w.at, now)}</span>
          </li>
        ))}
      </ul>
    </Panel>
  );
}
