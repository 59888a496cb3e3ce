import { formatBytes, formatCount } from '../../../src/core/units.ts';
import { clockTime } from '../../../src/core/words.ts';
import type { LinkState, TopologyEdge, TopologyNode } from '../../../src/core/topology.ts';
import type { PageProps } from '../app.tsx';
import { Figure, join, Pairs, Panel, State } from '../parts/ui.tsx';
import ui from '../parts/ui.module.css';
import { lagText, linkWords, sortEdges } from '../topology-facts.ts';
import styles from './topology.module.css';

const rowHeight = 56;
const edgeClass: Readonly<Record<LinkState, string | undefined>> = { 'on-time': styles.onTime, behind: styles.behind, copying: styles.copying, paused: styles.paused, 'not-connected': styles.broken };

export function FanOut({ view }: PageProps) {
  const { topology } = view.summary;
  if (topology?.kind !== 'fan-out') return <Panel title="Fan-out"><p className={ui.sub}>This job has one target. A fan-out begins with pgweave fanout run.</p></Panel>;
  const sources = topology.nodes.filter((n) => n.role === 'source');
  const now = Date.parse(view.summary.writtenAt);
  return (
    <>
      <Stats edges={topology.edges} sources={sources} />
      {sources.map((source) => {
        const edges = sortEdges(topology.edges.filter((e) => e.from === source.name));
        const height = edges.length * rowHeight;
        return (
          <Panel key={source.name} title={`Targets of ${source.name}`} bare aside="Worst first">
            <div className={styles.fan}>
              <div className={join(styles.columns, ui.sub)}><span>State</span><span>Target</span><span>Version</span><span className={styles.right}>Lag</span><span className={styles.right}>Behind by</span><span className={styles.right}>Applied</span></div>
              <div className={styles.source}><SourceNode node={source} /></div>
              <svg className={styles.edges} viewBox={`0 0 56 ${height}`} height={height} aria-hidden="true">
                {edges.map((e, i) => {
                  const y = i * rowHeight + rowHeight / 2;
                  return <path key={e.to} className={edgeClass[e.state]} d={`M0 ${height / 2}C28 ${height / 2} 20 ${y} 50 ${y}${e.state === 'not-connected' ? `M45 ${y - 4}l8 8M53 ${y - 4}l-8 8` : `M46 ${y - 4}l6 4-6 4`}`} />;
                })}
              </svg>
              <ul className={styles.rows}>{edges.map((e) => <Target key={e.to} edge={e} node={topology.nodes.find((n) => n.name === e.to)} now={now} />)}</ul>
            </div>
          </Panel>
        );
      })}
    </>
  );
}

function Stats({ edges, sources }: { readonly edges: readonly TopologyEdge[]; readonly sources: readonly TopologyNode[] }) {
  const count = (state: LinkState) => edges.filter((e) => e.state === state).length;
  const worst = edges.filter((e) => e.state !== 'not-connected' && e.lagMs !== null && e.lagMs !== undefined).sort((a, b) => b.lagMs! - a.lagMs!)[0];
  const retained = sources.filter((s) => s.retainedBytes !== null && s.retainedBytes !== undefined);
  const applied = edges.filter((e) => e.rowsPerSecond !== null && e.rowsPerSecond !== undefined);
  return (
    <div className={styles.stats}>
      <div className={styles.stat}>
        <div className={ui.sub}>Targets</div>
        <div className={styles.words}>
          {(['on-time', 'copying', 'behind', 'paused', 'not-connected'] as const).filter((s) => count(s) > 0).map((s) => {
            const [tone, icon, word] = linkWords[s];
            return <State key={s} tone={tone} icon={icon}><b>{formatCount(count(s))}</b> {word.toLowerCase()}</State>;
          })}
        </div>
      </div>
      <div className={styles.stat}><div className={ui.sub}>Worst lag of connected targets</div><Figure size="mid" text={worst ? lagText(worst) : '-'} /><div className={ui.sub}>{worst?.to ?? ''}</div></div>
      <div className={styles.stat}><div className={ui.sub}>Applied on all targets</div><Figure size="mid" text={applied.length > 0 ? `${formatCount(Math.round(applied.reduce((sum, e) => sum + e.rowsPerSecond!, 0)))} rows/s` : '-'} /></div>
      <div className={styles.stat}><div className={ui.sub}>WAL kept on the source</div><Figure size="mid" text={retained.length > 0 ? formatBytes(retained.reduce((sum, s) => sum + s.retainedBytes!, 0)) : '-'} /></div>
    </div>
  );
}

function SourceNode({ node }: { readonly node: TopologyNode }) {
  const facts: [string, string][] = [];
  if (node.slotsUsed !== null && node.slotsUsed !== undefined) facts.push(['Slots', node.slotsMax ? `${node.slotsUsed} of ${node.slotsMax}` : String(node.slotsUsed)]);
  if (node.retainedBytes !== null && node.retainedBytes !== undefined) facts.push(['Retained', formatBytes(node.retainedBytes)]);
  return (
    <div className={styles.node}>
      <div className={ui.hint}>Source</div>
      <b>{node.name}</b>
      <div className={ui.sub}>{node.host ?? ''}{node.version && <><br />PostgreSQL {node.version}</>}</div>
      {node.problem && <div className={ui.warn}>{node.problem}</div>}
      {facts.length > 0 && <Pairs items={facts} />}
    </div>
  );
}

function Target({ edge: e, node, now }: { readonly edge: TopologyEdge; readonly node: TopologyNode | undefined; readonly now: number }) {
  const [tone, icon, word] = linkWords[e.state];
  return (
    <li className={join(styles.target, tone === 'bad' && styles.bad, tone === 'warn' && styles.warn)}>
      <span className={styles.cell}><State tone={tone} icon={icon}>{word}</State>{e.since && <span className={ui.sub}>since {clockTime(e.since, now)}</span>}</span>
      <span className={styles.cell}><b>{e.to}</b><span className={ui.sub} title={e.detail ?? undefined}>{e.detail ?? node?.problem ?? node?.host ?? ''}</span></span>
      <span className={ui.sub}>{node?.version ?? ''}</span>
      <b className={styles.right}>{lagText(e)}</b>
      <span className={styles.right}>{e.lagBytes === null || e.lagBytes === undefined ? '-' : formatBytes(e.lagBytes)}</span>
      <span className={styles.right}>{e.rowsPerSecond === null || e.rowsPerSecond === undefined ? '-' : `${formatCount(Math.round(e.rowsPerSecond))}/s`}</span>
    </li>
  );
}
