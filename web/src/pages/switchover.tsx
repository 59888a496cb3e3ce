import { useEffect, useRef, useState, type ReactNode } from 'react';
import { formatBytes, formatCount, formatDuration } from '../../../src/core/units.ts';
import { isOnWayBack } from '../../../src/core/way-back.ts';
import { clockTime, stepStatusWords } from '../../../src/core/words.ts';
import type { CheckResult } from '../../../src/server/job-control.ts';
import type { PageProps } from '../app.tsx';
import { api } from '../connection/api.ts';
import { serverName } from '../facts.ts';
import { Icon, type IconName } from '../parts/icon.tsx';
import { Bar, Button, CopyBlock, join, Pairs, Panel, Refused, State, Tag, useDoing, type Tone } from '../parts/ui.tsx';
import ui from '../parts/ui.module.css';
import { allChecks, knownChecks, refusedMs, sidesAfter, stageOf, type Stage } from '../switchover-facts.ts';
import styles from './switchover.module.css';

export function Switchover(props: PageProps) {
  const stage = stageOf(props.view);
  // What was asked for last from here, so that the page knows its limit; another page's request is not known.
  const [limitMs, setLimitMs] = useState<number | null>(null);
  const { summary: s, state } = props.view;
  const isFailed = stage === 'stopped';
  return (
    <div className={styles.wrap}>
      {(stage === 'running' || stage === 'stopped' || s.writesRefused) && <Hero {...props} stage={stage} limitMs={limitMs} />}
      {isFailed && state.switchover.error && (
        <Panel title={state.switchover.status === 'stopped' ? 'It was stopped' : 'It did not go through'}>
          <div className={styles.gap}>
            <p className={ui.error}>{state.switchover.error.message}</p>
            {state.switchover.error.hint !== null && <p className={ui.sub}>{state.switchover.error.hint}</p>}
          </div>
        </Panel>
      )}
      {(stage === 'before' || (stage === 'stopped' && !isOnWayBack(s))) && <Before {...props} onStart={setLimitMs} />}
      {s.steps.length > 0 && <StepList {...props} stage={stage} />}
      <Proof {...props} />
      <WayBack {...props} stage={stage} />
    </div>
  );
}

function Hero({ view, receivedAt, current, stage, limitMs }: PageProps & { readonly stage: Stage; readonly limitMs: number | null }) {
  const { summary: s } = view;
  const refusing = s.writesRefused?.until === null;
  const now = useTenth(refusing && current);
  const ms = refusedMs(view, refusing && current ? now - receivedAt : 0);
  const tone: Tone = stage === 'done' ? 'ok' : stage === 'stopped' ? 'warn' : 'run';
  const words: Readonly<Record<Stage, readonly [IconName, string]>> = { before: ['clock', 'Not running'], running: ['copying', 'Running'], done: ['ok', 'Switched over'], stopped: ['pause', view.state.switchover.status === 'failed' ? 'Failed' : 'Stopped'] };
  const [icon, word] = words[stage];
  return (
    <section className={styles.hero} aria-label="Switchover">
      <div>
        <div className={ui.sub}>{ms === null ? 'Writes go on' : refusing ? 'Writes refused so far' : 'Writes were refused for'}</div>
        <div className={styles.number}>{ms === null ? '-' : (ms / 1000).toFixed(2)}<span>{ms === null ? '' : ' s'}</span></div>
        <div className={ui.sub}>
          {ms === null ? 'They are refused once the checks have passed.' : refusing ? 'Reads go on.' : `From ${s.writesRefused!.since.slice(11, 23)} to ${s.writesRefused!.until!.slice(11, 23)}.${stage === 'done' ? ` ${sidesAfter(s).primaryName} takes writes.` : ''}`}
        </div>
      </div>
      <div><Tag tone={tone} icon={icon}>{word}</Tag></div>
      {limitMs !== null && ms !== null && (
        <>
          <Bar className={styles.limit} fraction={ms / limitMs} tone={tone} label={`${formatDuration(ms)} of at most ${formatDuration(limitMs)}`} />
          <div className={join(styles.scale, ui.hint)}><span>0 s</span><span>{formatDuration(limitMs)}, then writes are given back</span></div>
        </>
      )}
    </section>
  );
}

/** Ten times a second while writes are refused. */
function useTenth(wanted: boolean): number {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    if (!wanted) return;
    const timer = window.setInterval(() => setNow(Date.now()), 100);
    return () => window.clearInterval(timer);
  }, [wanted]);
  return now;
}

const checkWords: Readonly<Record<CheckResult['status'], readonly [Tone, IconName, string]>> = { ok: ['ok', 'ok', 'OK'], warn: ['warn', 'warn', 'Warning'], failed: ['bad', 'bad', 'Not ready'] };

function Before(props: PageProps & { readonly onStart: (limitMs: number) => void }) {
  const { view, current, onStart } = props;
  const [own, setOwn] = useState<readonly CheckResult[] | null>(null);
  const checking = useDoing();
  const checks = allChecks(knownChecks(view), own ?? []);
  const failed = checks.filter((c) => c.status === 'failed').length;
  const warned = checks.filter((c) => c.status === 'warn').length;
  const canAct = current && view.state.canAct;
  const runChecks = () => checking.run(async () => setOwn((await api.checks()) ?? []));
  // Whoever opens the page wants to know; once, since looking costs both servers some queries.
  const asked = useRef(false);
  useEffect(() => {
    if (!canAct || asked.current || view.summary.phase !== 'streaming') return;
    asked.current = true;
    runChecks();
  });
  return (
    <>
      <Numbered n={1} done={failed === 0 && own !== null} title="Checks" aside={<>{formatCount(checks.length - failed - warned)} passed, {formatCount(warned)} warned, {formatCount(failed)} failed<Button small disabled={!canAct || checking.busy} onClick={runChecks}>{checking.busy ? 'Checking' : own ? 'Check again' : 'Check both servers'}</Button></>}>
        <ul className={styles.list}>
          {checks.map((c) => {
            const [tone, icon, word] = checkWords[c.status];
            return (
              <li key={c.name}>
                <State tone={tone} icon={icon}>{word}</State>
                <div><span><b>{c.name}</b> {c.detail}</span>{c.fix !== undefined && <Fix text={c.fix} />}</div>
              </li>
            );
          })}
        </ul>
        <Refused error={checking.error} what="The servers were not checked." />
      </Numbered>
      <Confirm view={view} canAct={canAct} closed={failed > 0 ? 'It is closed until no check fails.' : null} onStart={onStart} />
    </>
  );
}

/** A command or SQL can be copied; a sentence is read. */
function Fix({ text }: { readonly text: string }) {
  return /;\s*(--.*)?$|^pgweave /.test(text) ? <CopyBlock text={text} /> : <span className={ui.sub}>{text}</span>;
}

const limits = [['10', '10 s'], ['30', '30 s'], ['60', '60 s'], ['300', '5 min']] as const;

function Confirm({ view, canAct, closed, onStart }: { readonly view: PageProps['view']; readonly canAct: boolean; readonly closed: string | null; readonly onStart: (limitMs: number) => void }) {
  const starting = useDoing();
  const [limit, setLimit] = useState<(typeof limits)[number][0]>('30');
  const [verify, setVerify] = useState(false);
  const [reverse, setReverse] = useState(true);
  const [typed, setTyped] = useState('');
  const { source, target } = view.summary;
  const word = source?.database ?? view.summary.job;
  const start = () => {
    const timeoutMs = Number(limit) * 1000;
    onStart(timeoutMs);
    setTyped('');
    starting.run(() => api.switchover({ timeoutMs, verify, reverse }));
  };
  return (
    <Numbered n={2} done={false} title="Confirm">
      <form className={join(ui.body, styles.form)} onSubmit={(e) => { e.preventDefault(); if (typed === word) start(); }}>
        <p>Writes on {serverName(source, target, 'the source')} are refused, what is left is applied, sequences are carried over, and {serverName(target, source, 'the target')} takes over. Reads go on.</p>
        <fieldset className={styles.options}>
          <legend className={ui.hidden}>Options</legend>
          <label htmlFor="limit"><span className={ui.sub}>Give writes back after</span>
            <select id="limit" className={ui.input} value={limit} onChange={(e) => setLimit(e.target.value as typeof limit)}>{limits.map(([value, text]) => <option key={value} value={value}>{text}</option>)}</select>
          </label>
          <label className={styles.check}><input type="checkbox" checked={verify} onChange={(e) => setVerify(e.target.checked)} /><span>Compare all rows<span className={ui.sub}><br />While writes are refused: as long as both databases take to be read.</span></span></label>
          <label className={styles.check}><input type="checkbox" checked={reverse} onChange={(e) => setReverse(e.target.checked)} /><span>Keep the way back open<span className={ui.sub}><br />A slot on the target; the old source follows it.</span></span></label>
        </fieldset>
        <label className={ui.sub} htmlFor="confirm">Type <span className={ui.mono}>{word}</span> to go on</label>
        <div className={styles.confirm}>
          <input id="confirm" className={ui.input} autoComplete="off" value={typed} onChange={(e) => setTyped(e.target.value)} disabled={!canAct || closed !== null} />
          <Button look="primary" type="submit" disabled={!canAct || closed !== null || typed !== word || starting.busy}>Switch over now</Button>
        </div>
        {closed !== null && <p className={ui.sub}>{closed}</p>}
        {!canAct && <p className={ui.sub}>{view.state.note ?? 'Nothing can be asked for from here now.'}</p>}
        <Refused error={starting.error} what="The switchover was not begun." />
      </form>
    </Numbered>
  );
}

const stepTones: Readonly<Record<string, readonly [Tone, IconName]>> = { running: ['run', 'copying'], ok: ['ok', 'ok'], warn: ['warn', 'warn'], failed: ['bad', 'bad'], undone: ['warn', 'clock'], skipped: ['idle', 'pending'] };

function StepList({ view, current, stage }: PageProps & { readonly stage: Stage }) {
  const stopping = useDoing();
  const { steps } = view.summary;
  const done = steps.filter((step) => step.status === 'ok' || step.status === 'warn').length;
  return (
    <Numbered n={3} done={stage === 'done'} title="Steps" aside={`${formatCount(done)} done`}>
      <ol className={styles.steps} aria-live="polite">
        {steps.map((step) => {
          const [tone, icon] = stepTones[step.status]!;
          return (
            <li key={step.name} className={step.status === 'running' ? styles.running : step.status === 'failed' ? styles.failed : undefined}>
              <span className={join(styles.icon, ui[tone])}><Icon name={icon} spin={current && step.status === 'running'} /></span>
              <span className={styles.step}><b>{step.name}</b><span className={ui.hidden}>: {stepStatusWords[step.status]}</span></span>
              <span className={join(styles.detail, ui.sub)}>{step.status === 'undone' ? 'Undone. ' : ''}{step.detail}</span>
              <span className={join(styles.at, ui.mono)}>{step.status === 'running' ? 'running' : `${(step.elapsedMs / 1000).toFixed(3)} s`}</span>
            </li>
          );
        })}
      </ol>
      {stage === 'running' && view.state.canAct && (
        <div className={styles.stop}>
          <Button disabled={!current || stopping.busy || stopping.done} onClick={() => stopping.run(api.stopSwitchover)}>Stop and give writes back to the source</Button>
          <span className={ui.sub}>{stopping.done ? 'Asked for.' : 'What was done is undone in reverse. Nothing is lost.'}</span>
          <Refused error={stopping.error} what="It was not stopped." />
        </div>
      )}
    </Numbered>
  );
}

function Proof({ view }: PageProps) {
  const { verified } = view.summary;
  if (!verified) return null;
  const equal = verified.differing === 0;
  const download = () => {
    const blob = new Blob([JSON.stringify({ job: view.summary.job, source: view.summary.source, target: view.summary.target, verified, steps: view.summary.steps, writesRefused: view.summary.writesRefused ?? null }, null, 2)], { type: 'application/json' });
    const url = URL.createObjectURL(blob);
    const link = Object.assign(document.createElement('a'), { href: url, download: `pgweave-${view.summary.job}-proof.json` });
    link.click();
    URL.revokeObjectURL(url);
  };
  return (
    <Numbered n={4} done={equal} title="Proof" aside={<Button small onClick={download}>Download proof, JSON</Button>}>
      <div className={ui.body}>
        <Pairs
          items={[
            ['Compared', clockTime(verified.at, Date.parse(view.summary.writtenAt))], ['Tables', formatCount(verified.tables)], ['Rows', formatCount(verified.rows)],
            ...(verified.lsn === null ? [] : ([['Both sides as of', <span className={ui.mono}>{verified.lsn}</span>]] as const)),
            ['Result', equal ? <State tone="ok" icon="ok">Equal</State> : <State tone="bad" icon="bad">{formatCount(verified.differing)} tables differ</State>],
          ]}
        />
      </div>
    </Numbered>
  );
}

function WayBack({ view, current, stage }: PageProps & { readonly stage: Stage }) {
  const going = useDoing();
  const [typed, setTyped] = useState('');
  const { wayBack, job } = view.summary;
  if (!wayBack) return null;
  const { primary, primaryName, oldName } = sidesAfter(view.summary);
  const word = primary?.database ?? job;
  const follows = isOnWayBack(view.summary);
  const canAct = current && view.state.canAct && follows && (stage === 'done' || stage === 'stopped');
  return (
    <Numbered n={5} done={wayBack.open} title="The way back" aside={<Tag tone={wayBack.open ? 'ok' : 'idle'} icon={wayBack.open ? 'ok' : 'pending'}>{wayBack.open ? 'Open' : 'Closed'}</Tag>}>
      <div className={join(ui.body, styles.gap)}>
        <Pairs
          items={[
            ['Slot', <span className={ui.mono}>{wayBack.slot}</span>], [wayBack.open ? 'Open since' : 'Closed at', clockTime(wayBack.since, Date.parse(view.summary.writtenAt))],
            ...(wayBack.open ? ([['Old source', follows ? `${oldName} follows, ${formatBytes(view.summary.stream?.lagBytes ?? 0)} behind` : 'Nothing follows from here']] as const) : []),
          ]}
        />
        {wayBack.open && <CopyBlock text={`pgweave switchover${job === 'default' ? '' : ` --job ${job}`} --back`} />}
        {canAct && (
          <form className={styles.form} onSubmit={(e) => { e.preventDefault(); if (typed === word) { setTyped(''); going.run(() => api.switchover({ back: true })); } }}>
            <label className={ui.sub} htmlFor="back">Writes on {primaryName} are refused and {oldName} takes over again. Type <span className={ui.mono}>{word}</span> to go back</label>
            <div className={styles.confirm}>
              <input id="back" className={ui.input} autoComplete="off" value={typed} onChange={(e) => setTyped(e.target.value)} />
              <Button type="submit" disabled={typed !== word || going.busy}>Go back now</Button>
            </div>
            <Refused error={going.error} what="The way back was not taken." />
          </form>
        )}
      </div>
    </Numbered>
  );
}

function Numbered({ n, done, title, aside, children }: { readonly n: number; readonly done: boolean; readonly title: string; readonly aside?: ReactNode; readonly children: ReactNode }) {
  const id = `part-${n}`;
  return (
    <section className={ui.panel} aria-labelledby={id}>
      <div className={ui.head}>
        {done ? <span className={ui.ok}><Icon name="ok" /></span> : <span className={styles.ring} aria-hidden="true">{n}</span>}
        <h2 id={id}>{title}</h2>
        {aside !== undefined && <span className={ui.aside}>{aside}</span>}
      </div>
      {children}
    </section>
  );
}
