import type { JobSnapshot, LogLine } from '../core/snapshot.ts';
import { phaseWords } from '../core/words.ts';

export const historyRanges = ['15m', '1h', '6h', 'all'] as const;
export type HistoryRange = (typeof historyRanges)[number];

export const historySeries = ['lagMs', 'lagBytes', 'copyBytesPerSecond', 'appliedRowsPerSecond', 'retainedBytes', 'bytesDone'] as const;
export type HistorySeriesName = (typeof historySeries)[number];

/** Columns of equal length; `at` in seconds since 1970. A null is a gap: nothing was measured, or nothing ran. */
export interface History {
  readonly range: HistoryRange;
  readonly stepSeconds: number;
  readonly at: number[];
  readonly series: Record<HistorySeriesName, (number | null)[]>;
  readonly events: { readonly at: number; readonly text: string }[];
}

type Values = Record<HistorySeriesName, number | null>;

interface Tier { readonly stepSeconds: number; readonly keep: number; points: { at: number; values: Values }[]; pending: Values[]; since: number }

/** 1 s for 15 minutes, 10 s for an hour, 60 s for six hours, 10 min for 28 days: 900 + 360 + 360 + 4,032 points, some 1 MB. */
const tiers: Readonly<Record<HistoryRange, readonly [stepSeconds: number, keep: number]>> = { '15m': [1, 900], '1h': [10, 360], '6h': [60, 360], all: [600, 4032] };
const eventsKept = 200;

/** Everything that a recorder knows, as its file holds it: history-file.ts. */
export interface KeptHistory {
  readonly format: 1;
  readonly job: string;
  readonly lastPhase: string;
  readonly events: readonly { readonly at: number; readonly text: string }[];
  /** By range; columns as in {@link History}. */
  readonly tiers: Readonly<Record<HistoryRange, { readonly at: readonly number[]; readonly series: Readonly<Record<HistorySeriesName, readonly (number | null)[]>> }>>;
}

/** What the charts show: measured while the job or its server runs, coarser the older it is. Lag keeps its highest value of a step, rates their mean. */
export class HistoryRecorder {
  readonly #tiers = new Map<HistoryRange, Tier>();
  #events: { at: number; text: string }[] = [];
  #lastPhase = '';
  #lastLine = 0;

  constructor() {
    for (const range of historyRanges) {
      const [stepSeconds, keep] = tiers[range];
      this.#tiers.set(range, { stepSeconds, keep, points: [], pending: [], since: 0 });
    }
  }

  /** Call once a second. `running` false records a gap. */
  record(snapshot: JobSnapshot, running: boolean, now: number): void {
    const at = Math.floor(now / 1000);
    const values = running ? valuesOf(snapshot) : gap();
    for (const tier of this.#tiers.values()) {
      const since = at - (at % tier.stepSeconds);
      if (tier.pending.length > 0 && since !== tier.since) closeStep(tier);
      tier.since = since;
      tier.pending.push(values);
    }
    this.#noteEvents(snapshot);
  }

  read(range: HistoryRange): History {
    const tier = this.#tiers.get(range)!;
    const all = pointsOf(tier);
    // Points of before a break are older than their number tells.
    const oldest = (all.at(-1)?.at ?? 0) - tier.stepSeconds * tier.keep;
    const points = all.filter((p) => p.at >= oldest);
    const from = points[0]?.at ?? 0;
    return { range, stepSeconds: tier.stepSeconds, ...columns(points), events: this.#events.filter((e) => e.at >= from) };
  }

  /** All of it, to be kept and given to {@link restore} of another recorder. */
  keep(job: string): KeptHistory {
    const tiersKept = Object.fromEntries([...this.#tiers].map(([range, tier]) => [range, columns(pointsOf(tier))])) as unknown as KeptHistory['tiers'];
    return { format: 1, job, lastPhase: this.#lastPhase, events: this.#events, tiers: tiersKept };
  }

  /** Takes over what an earlier recorder kept, before anything is recorded. Between the two nothing was measured: a gap. */
  restore(kept: KeptHistory): void {
    this.#lastPhase = kept.lastPhase;
    this.#events = [...kept.events];
    for (const [range, tier] of this.#tiers) {
      const { at, series } = kept.tiers[range];
      tier.points = at.map((time, i) => ({ at: time, values: Object.fromEntries(historySeries.map((name) => [name, series[name][i] ?? null])) as Values }));
      const last = tier.points.at(-1);
      if (last) tier.points.push({ at: last.at + tier.stepSeconds, values: gap() });
    }
  }

  #noteEvents(snapshot: JobSnapshot): void {
    for (const { phase, since } of snapshot.phases) if (since > this.#lastPhase) this.#note(since, phaseWords[phase]);
    this.#lastPhase = snapshot.phases.at(-1)?.since ?? this.#lastPhase;
    for (const line of snapshot.log) if (line.n > this.#lastLine && isBreak(line)) this.#note(line.at, line.message);
    this.#lastLine = snapshot.log.at(-1)?.n ?? this.#lastLine;
  }

  #note(at: string, text: string): void {
    this.#events.push({ at: Math.floor(Date.parse(at) / 1000), text: text.length > 80 ? `${text.slice(0, 79)}…` : text });
    if (this.#events.length > eventsKept) this.#events = this.#events.slice(-eventsKept);
  }
}

type Point = Tier['points'][number];

function pointsOf(tier: Tier): Point[] {
  if (tier.pending.length === 0) return tier.points;
  const newest = { at: tier.since, values: merge(tier.pending) };
  // A job that was started again within a step goes on in it.
  return [...tier.points.filter((p) => p.at < newest.at), newest];
}

function columns(points: readonly Point[]): { at: number[]; series: History['series'] } {
  return { at: points.map((p) => p.at), series: Object.fromEntries(historySeries.map((name) => [name, points.map((p) => p.values[name])])) as History['series'] };
}

function isBreak(line: LogLine): boolean {
  return line.level === 'error';
}

function valuesOf(s: JobSnapshot): Values {
  return {
    lagMs: s.stream?.lagMs ?? null, lagBytes: s.stream?.lagBytes ?? null, copyBytesPerSecond: s.phase === 'copying' ? s.rates.copyBytesPerSecond : null,
    appliedRowsPerSecond: s.stream ? s.rates.appliedRowsPerSecond : null, retainedBytes: s.slot?.retainedBytes ?? null, bytesDone: s.totals.bytes > 0 ? s.totals.bytesDone : null,
  };
}

function gap(): Values {
  return { lagMs: null, lagBytes: null, copyBytesPerSecond: null, appliedRowsPerSecond: null, retainedBytes: null, bytesDone: null };
}

function closeStep(tier: Tier): void {
  tier.points = pointsOf(tier).slice(-tier.keep);
  tier.pending = [];
}

function merge(values: readonly Values[]): Values {
  const out = gap();
  for (const name of historySeries) {
    const known = values.map((v) => v[name]).filter((v) => v !== null);
    if (known.length === 0) continue;
    const isRate = name === 'copyBytesPerSecond' || name === 'appliedRowsPerSecond';
    out[name] = isRate ? known.reduce((a, b) => a + b, 0) / known.length : Math.max(...known);
  }
  return out;
}
