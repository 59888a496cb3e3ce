import { Box, render, Text, useInput, useStdout, type Instance } from 'ink';
import { useCallback, useEffect, useReducer, useRef, useState, type ReactNode } from 'react';
import { errorMessage, PgweaveError } from '../core/errors.ts';
import type { JobSnapshot } from '../core/snapshot.ts';
import { isOnWayBack } from '../core/way-back.ts';
import type { JobControl } from '../server/job-control.ts';
import { headLines, logLine, matchingTables, stepLine, tableLine, tablesTitle, type Line, type Tone } from './lines.ts';
import { firstState, press, type Key, type TuiCommand, type TuiState } from './model.ts';

export interface DashboardProps {
  readonly control: JobControl;
  /** Whether leaving ends the job: true where the dashboard belongs to its run. */
  readonly quitStopsJob: boolean;
  readonly onQuit: () => void;
  readonly now?: () => number;
  readonly everyMs?: number;
}

const colours: Readonly<Record<Tone, { color?: string; bold?: boolean; dimColor?: boolean }>> = {
  plain: {}, bold: { bold: true }, dim: { dimColor: true }, ok: { color: 'green' }, run: { color: 'blue' }, index: { color: 'magenta' }, warn: { color: 'yellow' }, bad: { color: 'red' },
};

/** Draws the dashboard on a terminal until it is unmounted. */
export function mountDashboard(props: DashboardProps, terminal: { readonly stdin: NodeJS.ReadStream; readonly stdout: NodeJS.WriteStream }): Instance {
  return render(<Dashboard {...props} />, { ...terminal, exitOnCtrlC: false, patchConsole: false });
}

function Dashboard({ control, quitStopsJob, onQuit, now = Date.now, everyMs = 500 }: DashboardProps) {
  const [state, setState] = useState<TuiState>(firstState);
  const stateNow = useRef(state);
  const update = useCallback((next: TuiState) => {
    stateNow.current = next;
    setState(next);
  }, []);
  const [, redraw] = useReducer((n: number) => n + 1, 0);
  const { width, height } = useSize();
  const [switchover, setSwitchover] = useState<AbortController | null>(null);

  useEffect(() => {
    const timer = setInterval(redraw, everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);

  const snapshot = control.read();
  const about = control.state();
  const canAct = about.running && control.actions !== null;
  const tell = (text: string, tone: 'info' | 'warn') => update({ ...stateNow.current, message: { text, tone } });
  const refuse = (error: unknown) => tell(`${errorMessage(error)}${error instanceof PgweaveError && error.hint ? ` ${error.hint}` : ''}`, 'warn');

  const layout = layOut(height, headLines(snapshot, width, now()).length);
  const tables = matchingTables(snapshot, state.filter);
  const top = Math.min(state.top, Math.max(0, tables.length - layout.main));
  const context = { tables: tables.length, room: layout.main, canAct, note: about.note, word: snapshot.source?.database ?? snapshot.job, quitStopsJob };

  const run = (command: TuiCommand) => {
    const { actions } = control;
    if (command === 'quit') return onQuit();
    if (!actions) return;
    if (command === 'pause') void actions.pause().then(() => tell('Pause was asked for.', 'info'), refuse);
    if (command === 'resume') void actions.resume().then(() => tell('Resume was asked for.', 'info'), refuse);
    if (command === 'switchover') {
      const abort = new AbortController();
      setSwitchover(abort);
      void actions.switchover(isOnWayBack(control.read()) ? { back: true } : {}, abort.signal).then(() => tell('The switchover is through.', 'info'), refuse).finally(() => setSwitchover(null));
    }
  };

  // Keys come faster than pictures: each is judged by the newest state, not by the one last drawn, and Ink keeps one listener.
  const latest = useRef({ context, run, switchover });
  latest.current = { context, run, switchover };
  const onKey = useCallback((input: string, inkKey: InkKey) => {
    const known = latest.current;
    const key = toKey(input, inkKey);
    // While writes are refused, Esc is the way to give them back.
    if (known.switchover && key.name === 'escape') {
      known.switchover.abort();
      update({ ...stateNow.current, message: { text: 'Stop was asked for: writes are given back to the source.', tone: 'warn' } });
      return;
    }
    for (const one of split(key)) {
      const next = press(stateNow.current, one, known.context);
      update(next.state);
      if (next.command) known.run(next.command);
    }
  }, [update]);
  useInput(onKey);

  const showSteps = snapshot.phase === 'switching-over' || snapshot.phase === 'switched-over';
  return (
    <Box flexDirection="column" width={width} height={height}>
      {headLines(snapshot, width, now()).map((line, i) => <Row key={i} line={line} />)}
      <Rule width={width} />
      {showSteps ? <Steps snapshot={snapshot} width={width} room={layout.main + 1} /> : (
        <>
          <Row line={tablesTitle(snapshot, tables.length, top, layout.main, state.filter, width)} />
          <Fill rows={layout.main}>{tables.slice(top, top + layout.main).map((t) => <Row key={`${t.schema}\0${t.name}`} line={tableLine(t, width)} />)}</Fill>
        </>
      )}
      {layout.log > 0 && (
        <>
          <Rule width={width} />
          <Fill rows={layout.log}>{snapshot.log.slice(-layout.log).map((line) => <Row key={line.n} line={logLine(line, width)} />)}</Fill>
        </>
      )}
      <Rule width={width} />
      <Foot state={state} width={width} note={about.running ? null : about.note} word={context.word} switching={switchover !== null} back={isOnWayBack(snapshot)} />
    </Box>
  );
}

/** Rows for tables and for the log: the log gets a quarter of what is left, at most eight, and none on a small screen. */
export function layOut(height: number, head: number): { main: number; log: number } {
  // Rule, tables' title, rule, foot.
  const free = height - head - 4;
  const log = free >= 12 ? Math.min(8, Math.floor(free / 4)) : 0;
  return { main: Math.max(1, free - log - (log > 0 ? 1 : 0)), log };
}

function useSize(): { width: number; height: number } {
  const { stdout } = useStdout();
  const [size, setSize] = useState(() => ({ width: stdout.columns ?? 80, height: stdout.rows ?? 24 }));
  useEffect(() => {
    const resize = () => setSize({ width: stdout.columns ?? 80, height: stdout.rows ?? 24 });
    stdout.on('resize', resize);
    return () => void stdout.off('resize', resize);
  }, [stdout]);
  // One row less than the terminal has: a full last row makes some terminals scroll.
  return { width: Math.max(40, size.width), height: Math.max(10, size.height - 1) };
}

function Row({ line }: { readonly line: Line }) {
  // A row without any text would take no row at all.
  if (line.every(([, text]) => text === '')) return <Text> </Text>;
  return (
    <Text wrap="truncate">
      {line.map(([tone, text], i) => <Text key={i} {...colours[tone]}>{text}</Text>)}
    </Text>
  );
}

function Rule({ width }: { readonly width: number }) {
  return <Text dimColor>{'─'.repeat(width)}</Text>;
}

/** Takes its rows whether they are filled or not, so that nothing below jumps. */
function Fill({ rows, children }: { readonly rows: number; readonly children: ReactNode }) {
  return <Box flexDirection="column" height={rows} overflow="hidden">{children}</Box>;
}

function Steps({ snapshot, width, room }: { readonly snapshot: JobSnapshot; readonly width: number; readonly room: number }) {
  return (
    <Fill rows={room}>
      <Text bold>Switchover</Text>
      {snapshot.steps.slice(-(room - 1)).map((step) => <Row key={step.name} line={stepLine(step, width)} />)}
    </Fill>
  );
}

function Foot({ state, width, note, word, switching, back }: { readonly state: TuiState; readonly width: number; readonly note: string | null; readonly word: string; readonly switching: boolean; readonly back: boolean }) {
  if (state.mode === 'filter') return <Text wrap="truncate">Filter: {state.filter}<Text inverse> </Text>  <Text dimColor>Enter keeps it, Esc clears it</Text></Text>;
  if (state.mode === 'confirm-switchover') return <Text wrap="truncate" color="yellow">Type {word} to {back ? 'go back' : 'switch over'}: {state.typed}<Text inverse> </Text>  <Text dimColor>Esc cancels. Writes on the source will be refused.</Text></Text>;
  if (state.mode === 'confirm-quit') return <Text wrap="truncate" color="yellow">Stop the job? State is kept; the same command goes on. y/n</Text>;
  if (switching) return <Text wrap="truncate" color="yellow">A switchover runs. Esc stops it and gives writes back.</Text>;
  if (state.message) return <Text wrap="truncate" {...(state.message.tone === 'warn' ? { color: 'yellow' } : {})}>{state.message.text}</Text>;
  if (note !== null) return <Text wrap="truncate" color="yellow">{note}</Text>;
  const hand = back ? 'go back' : 'switchover';
  const keys = width >= 84 ? `q quit   s ${hand}   p pause   r resume   / filter   ↑ ↓ PgUp PgDn scroll` : `q quit  s ${hand}  p pause  r resume  / filter`;
  return <Text wrap="truncate" dimColor>{keys}</Text>;
}

type InkKey = Parameters<Parameters<typeof useInput>[0]>[1];

/** A terminal hands over what was typed quickly, or pasted, in one piece. */
function split(key: Key): Key[] {
  return key.name === null && key.input.length > 1 ? Array.from(key.input, (input): Key => (input === '\r' || input === '\n' ? { input: '', name: 'enter' } : { input, name: null })) : [key];
}

function toKey(input: string, key: InkKey): Key {
  const named = (name: Key['name']): Key => ({ input: '', name });
  if (key.ctrl) return input === 'c' ? named('interrupt') : named(null);
  if (key.upArrow) return named('up');
  if (key.downArrow) return named('down');
  if (key.pageUp) return named('page-up');
  if (key.pageDown) return named('page-down');
  if (key.home) return named('home');
  if (key.end) return named('end');
  if (key.return) return named('enter');
  if (key.escape) return named('escape');
  // Terminals send 0x7f for the key above Enter, which Ink calls delete.
  if (key.backspace || key.delete) return named('backspace');
  if (key.leftArrow || key.rightArrow || key.tab || key.meta) return named(null);
  return { input, name: null };
}
