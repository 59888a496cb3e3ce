import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { sampleJob } from '../../test/support/sample-job.ts';
import { ownJob } from './job-control.ts';
import { jobMetrics } from './metrics.ts';

const root = resolve(import.meta.dirname, '../..');

function metricNames(): string[] {
  const job = sampleJob();
  return jobMetrics(ownJob(() => job.status.read(), {}, null)).getMetricsAsArray().map((m) => m.name);
}

describe('metrics and what is written of them', () => {
  it('are all in the manual', () => {
    const manual = readFileSync(join(root, 'docs/api.md'), 'utf8');
    expect(metricNames().filter((name) => !/^pgweave_(process|nodejs)_/.test(name) && !manual.includes(`\`${name}\``))).toEqual([]);
  });

  it('are the ones that the manual, the Grafana dashboard and the alerts ask for', () => {
    const known = new Set(metricNames());
    const folder = join(root, 'examples/grafana');
    const texts = [readFileSync(join(root, 'docs/api.md'), 'utf8'), ...readdirSync(folder).map((name) => readFileSync(join(folder, name), 'utf8'))];
    const asked = texts.flatMap((text) => text.match(/\bpgweave_[a-z0-9_]*[a-z0-9]\b(?!\*)/g) ?? []).filter((name) => !/^pgweave_(process|nodejs)$/.test(name));
    expect(asked.length).toBeGreaterThan(40);
    expect([...new Set(asked)].filter((name) => !known.has(name))).toEqual([]);
  });

  it('stand in a Grafana dashboard that can be imported', () => {
    const dashboard = JSON.parse(readFileSync(join(root, 'examples/grafana/pgweave.json'), 'utf8')) as { uid: string; panels: { id: number; targets: { expr: string }[]; gridPos: { x: number; w: number } }[] };
    expect(dashboard.uid).toBe('pgweave');
    expect(new Set(dashboard.panels.map((p) => p.id)).size).toBe(dashboard.panels.length);
    for (const panel of dashboard.panels) expect(panel.targets.length > 0 && panel.gridPos.x + panel.gridPos.w <= 24).toBe(true);
  });
});
