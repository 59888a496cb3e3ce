import { useEffect, useRef } from 'react';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import styles from './chart.module.css';
import { Figure } from './ui.tsx';

export interface ChartProps {
  readonly title: string;
  /** The value now, in words; `-` where nothing is measured at the moment. */
  readonly now: string;
  readonly at: readonly number[];
  readonly values: readonly (number | null)[];
  readonly events: readonly { readonly at: number; readonly text: string }[];
  readonly tone: 'run' | 'ok';
  readonly format: (value: number) => string;
  /** Ticks of bytes go in powers of two. */
  readonly binary?: boolean;
}

const syncKey = 'pgweave';

/** One line over time: axis from zero, labels at the right, a cursor shared with all other charts, gaps left open. */
export function Chart(props: ChartProps) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const latest = useRef(props);
  latest.current = props;
  useEffect(() => {
    if (!box.current) return;
    const element = box.current;
    const made = make(element, latest);
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize(sizeOf(element)));
    observer.observe(element);
    const redraw = () => made.redraw(true, true);
    const scheme = matchMedia('(prefers-color-scheme: dark)');
    window.addEventListener('pgweave-theme', redraw);
    scheme.addEventListener('change', redraw);
    return () => {
      observer.disconnect();
      window.removeEventListener('pgweave-theme', redraw);
      scheme.removeEventListener('change', redraw);
      made.destroy();
      plot.current = null;
    };
  }, []);

  useEffect(() => {
    plot.current?.setData([props.at as number[], props.values as (number | null)[]]);
  }, [props.at, props.values]);

  const known = props.values.filter((v) => v !== null);
  const highest = known.length > 0 ? props.format(Math.max(...known.map(Number))) : 'not measured';
  return (
    <figure className={styles.chart}>
      <figcaption className={styles.head}>
        <h3>{props.title}</h3>
        <Figure size="mid" text={props.now} />
      </figcaption>
      <div ref={box} className={styles.plot} tabIndex={0} role="img" aria-label={`${props.title}: now ${props.now}, highest ${highest}. Arrow keys move the cursor.`} onKeyDown={(e) => moveCursor(e, plot.current)} onBlur={() => plot.current?.setCursor({ left: -10, top: -10 })} />
    </figure>
  );
}

function sizeOf(element: HTMLElement): { width: number; height: number } {
  return { width: Math.max(80, element.clientWidth), height: 132 };
}

const variable = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function make(element: HTMLElement, latest: { readonly current: ChartProps }): uPlot {
  const axis = { stroke: () => variable('--ink-3'), font: '11px system-ui, sans-serif', ticks: { show: false }, border: { show: false } } as const;
  return new uPlot(
    {
      ...sizeOf(element),
      legend: { show: false },
      padding: [8, 0, 0, 0],
      cursor: { sync: { key: syncKey }, y: false, points: { size: 6 }, drag: { setScale: false } },
      scales: { x: { time: true }, y: { range: (_u, _min, max) => [0, niceCeiling(max ?? 0, latest.current.binary === true)] } },
      axes: [
        { ...axis, grid: { show: false }, size: 22, gap: 2, space: 64, filter: (u, ticks) => ticks.map((t) => (u.valToPos(t, 'x') < 26 || u.valToPos(t, 'x') > (u.over.clientWidth || Infinity) - 26 ? null : t)), values: (u, ticks) => ticks.map((t: number | null) => t === null ? '' : new Date(t * 1000).toISOString().slice(11, (u.scales['x']!.max ?? 0) - (u.scales['x']!.min ?? 0) < 600 ? 19 : 16)) },
        { ...axis, side: 1, size: 66, gap: 6, grid: { stroke: () => variable('--line'), width: 1 }, splits: (u) => [0, (u.scales['y']!.max ?? 0) / 2, u.scales['y']!.max ?? 0], values: (_u, ticks) => ticks.map((t) => (t === 0 ? '0' : latest.current.format(t))) },
      ],
      series: [{}, { stroke: () => variable(`--${latest.current.tone}`), width: 1.5, fill: () => `${variable(`--${latest.current.tone}`)}1a`, spanGaps: false, points: { show: false } }],
      hooks: { draw: [(u) => drawEvents(u, latest.current)], setCursor: [(u) => showValue(u, latest.current)] },
    },
    [latest.current.at as number[], latest.current.values as (number | null)[]],
    element,
  );
}

/** The next round number, so that the highest label reads well; bytes are rounded to halves of powers of two. */
function niceCeiling(max: number, binary: boolean): number {
  if (max <= 0) return 1;
  const base = binary ? 2 ** Math.floor(Math.log2(max)) : 10 ** Math.floor(Math.log10(max));
  for (const step of binary ? [1, 1.5, 2] : [1, 2, 4, 5, 10]) if (max <= base * step) return base * step;
  return max;
}

/** Dotted lines where something happened. */
function drawEvents(u: uPlot, { events }: ChartProps): void {
  const { ctx } = u;
  ctx.save();
  ctx.strokeStyle = variable('--ink-3');
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([devicePixelRatio, 3 * devicePixelRatio]);
  for (const event of events) {
    const x = Math.round(u.valToPos(event.at, 'x', true));
    if (x < u.bbox.left || x > u.bbox.left + u.bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(x, u.bbox.top);
    ctx.lineTo(x, u.bbox.top + u.bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}

/** The value under the cursor, with its time and what happened then, in the figure's own corner. */
function showValue(u: uPlot, props: ChartProps): void {
  let label = u.over.querySelector('output');
  if (!label) {
    label = document.createElement('output');
    Object.assign(label.style, { position: 'absolute', top: '-8px', font: '11px/16px system-ui, sans-serif', padding: '1px 6px', borderRadius: '4px', background: 'var(--ink)', color: 'var(--surface)', whiteSpace: 'nowrap', pointerEvents: 'none', zIndex: '3' });
    label.setAttribute('aria-hidden', 'true');
    u.over.append(label);
  }
  const { idx, left } = u.cursor;
  const at = idx === null || idx === undefined ? undefined : props.at[idx];
  label.hidden = at === undefined || left === undefined || left < 0;
  if (label.hidden || at === undefined) return;
  const value = props.values[idx!];
  const event = props.events.find((e) => Math.abs(e.at - at) < 2);
  label.textContent = `${new Date(at * 1000).toISOString().slice(11, 19)}  ${value === null || value === undefined ? 'not measured' : props.format(value)}${event ? `  ${event.text}` : ''}`;
  const right = (left ?? 0) > u.over.clientWidth / 2;
  label.style.left = right ? 'auto' : `${left}px`;
  label.style.right = right ? `${u.over.clientWidth - (left ?? 0)}px` : 'auto';
}

function moveCursor(event: React.KeyboardEvent, u: uPlot | null): void {
  if (!u) return;
  if (event.key === 'Escape') u.setCursor({ left: -10, top: -10 });
  if (event.key !== 'ArrowLeft' && event.key !== 'ArrowRight') return;
  event.preventDefault();
  const last = u.data[0].length - 1;
  const now = u.cursor.idx ?? last;
  const next = Math.min(last, Math.max(0, now + (event.key === 'ArrowLeft' ? -1 : 1)));
  u.setCursor({ left: u.valToPos(u.data[0][next]!, 'x'), top: 10 });
}

/** A small line without axes, for a trend beside its number. */
export function Spark({ values, tone, label }: { readonly values: readonly (number | null)[]; readonly tone: 'run' | 'warn' | 'bad' | 'ink-2'; readonly label: string }) {
  const known = values.filter((v) => v !== null).map(Number);
  if (known.length < 2) return null;
  const highest = Math.max(...known, 1);
  let pen = 'M';
  const path = values.map((v, i) => {
    if (v === null) {
      pen = 'M';
      return '';
    }
    const point = `${pen}${((i / (values.length - 1)) * 600).toFixed(1)} ${(98 - (v / highest) * 96).toFixed(1)}`;
    pen = 'L';
    return point;
  });
  return (
    <svg className={styles.spark} viewBox="0 0 600 100" preserveAspectRatio="none" role="img" aria-label={label}>
      <path d={path.join('')} style={{ stroke: `var(--${tone})` }} />
    </svg>
  );
}
