import { formatCount } from '../../../src/core/units.ts';
import type { LinkState, Topology, TopologyEdge } from '../../../src/core/topology.ts';
import type { PageProps } from '../app.tsx';
import { Icon } from '../parts/icon.tsx';
import { join, Panel, State } from '../parts/ui.tsx';
import ui from '../parts/ui.module.css';
import { labelShare, lagText, linkWords, nodeWord, placeNodes, sortEdges } from '../topology-facts.ts';
import styles from './topology.module.css';

const edgeClass: Readonly<Record<LinkState, string | undefined>> = { 'on-time': styles.onTime, behind: styles.behind, copying: styles.copying, paused: styles.paused, 'not-connected': styles.broken };

export function Mesh({ view }: PageProps) {
  const { topology } = view.summary;
  if (topology?.kind !== 'mesh') return <Panel title="Mesh"><p className={ui.sub}>This job is no mesh. One begins with pgweave mesh generate.</p></Panel>;
  return (
    <>
      <div className={styles.two}>
        <Panel title="Mesh" bare aside="The label of a pair is the slower direction"><Picture topology={topology} /></Panel>
        <Panel title="Lag" bare aside="from row to column"><Matrix topology={topology} /></Panel>
      </div>
      <Panel title="Nodes" bare><Nodes topology={topology} /></Panel>
    </>
  );
}

function Picture({ topology }: { readonly topology: Topology }) {
  const places = placeNodes(topology.nodes.length);
  const at = new Map(topology.nodes.map((n, i) => [n.name, places[i]!]));
  const pairs = pairsOf(topology.edges);
  return (
    <div className={styles.map} role="img" aria-label={`${formatCount(topology.nodes.length)} nodes; the table beside it holds every lag`}>
      <svg viewBox="0 0 1000 760" preserveAspectRatio="none" aria-hidden="true">
        {topology.edges.map((e) => {
          const from = at.get(e.from);
          const to = at.get(e.to);
          if (!from || !to) return null;
          // Two directions lie side by side.
          const length = Math.hypot(to.x - from.x, to.y - from.y) || 1;
          const dx = (-(to.y - from.y) / length) * 5;
          const dy = ((to.x - from.x) / length) * 5;
          return <path key={`${e.from} ${e.to}`} className={edgeClass[e.state]} d={`M${from.x + dx} ${from.y + dy}L${to.x + dx} ${to.y + dy}`} />;
        })}
      </svg>
      {pairs.map(({ a, b, slower }) => {
        const from = at.get(a);
        const to = at.get(b);
        if (!from || !to) return null;
        const [tone, icon, word] = linkWords[slower.state];
        const share = labelShare(from, to);
        const off = slower.state === 'not-connected';
        return (
          <span key={`${a} ${b}`} className={join(styles.label, tone === 'warn' && styles.warn, tone === 'bad' && styles.bad)} style={{ left: `${(from.x + (to.x - from.x) * share) / 10}%`, top: `${(from.y + (to.y - from.y) * share) / 7.6}%` }}>
            {slower.state !== 'on-time' && <Icon name={icon} />}{off ? word.toLowerCase() : lagText(slower)}{slower.state !== 'on-time' && <span className={styles.whereTo}> to {slower.to}</span>}
          </span>
        );
      })}
      {topology.nodes.map((n) => {
        const place = at.get(n.name)!;
        const [tone, icon] = nodeWord(topology, n);
        return (
          <div key={n.name} className={join(styles.place, tone === 'warn' && styles.warn, tone === 'bad' && styles.bad)} style={{ left: `${place.x / 10}%`, top: `${place.y / 7.6}%` }}>
            <b><i className={ui[tone]}><Icon name={icon} /></i>{n.name}</b>
            <span className={ui.sub}>{[n.version && `PostgreSQL ${n.version}`, n.writesPerSecond !== null && n.writesPerSecond !== undefined && `${formatCount(Math.round(n.writesPerSecond))} writes/s`].filter(Boolean).join(', ')}</span>
          </div>
        );
      })}
    </div>
  );
}

/** Two directions as one label: the worse of them. */
function pairsOf(edges: readonly TopologyEdge[]): { a: string; b: string; slower: TopologyEdge }[] {
  const pairs = new Map<string, { a: string; b: string; slower: TopologyEdge }>();
  for (const e of sortEdges(edges)) {
    const [a, b] = e.from < e.to ? [e.from, e.to] : [e.to, e.from];
    const key = JSON.stringify([a, b]);
    if (!pairs.has(key)) pairs.set(key, { a, b, slower: e });
  }
  return [...pairs.values()];
}

function Matrix({ topology }: { readonly topology: Topology }) {
  const { nodes, edges } = topology;
  return (
    <div className={styles.scroll} tabIndex={0} role="region" aria-label="Lag from node to node">
      <table className={styles.matrix}>
        <thead><tr><td />{nodes.map((n) => <th key={n.name} scope="col">{n.name}</th>)}</tr></thead>
        <tbody>
          {nodes.map((from) => (
            <tr key={from.name}>
              <th scope="row">{from.name}</th>
              {nodes.map((to) => {
                if (from.name === to.name) return <td key={to.name} className={styles.self} />;
                const edge = edges.find((e) => e.from === from.name && e.to === to.name);
                const tone = edge ? linkWords[edge.state][0] : 'idle';
                return <td key={to.name} className={join(tone === 'warn' && styles.warn, tone === 'bad' && styles.bad)}>{!edge ? '-' : edge.state === 'not-connected' ? 'not connected' : lagText(edge)}</td>;
              })}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

const measured = (value: number | null | undefined, text: (value: number) => string): string => (value === null || value === undefined ? '-' : text(value));

function Nodes({ topology }: { readonly topology: Topology }) {
  return (
    <div className={styles.scroll} tabIndex={0} role="region" aria-label="Nodes">
      <table className={styles.table}>
        <thead><tr><th>Node</th><th>State</th><th>Version</th><th className={styles.right}>Writes</th><th className={styles.right}>Conflicts</th><th className={styles.right}>Parked rows</th><th className={styles.right}>Clock</th></tr></thead>
        <tbody>
          {topology.nodes.map((n) => {
            const [tone, icon, word] = nodeWord(topology, n);
            return (
              <tr key={n.name}>
                <td><b>{n.name}</b> <span className={ui.sub}>{n.host ?? ''}</span></td>
                <td><State tone={tone} icon={icon}>{word}</State></td>
                <td>{n.version ?? '-'}</td>
                <td className={styles.right}>{measured(n.writesPerSecond, (v) => `${formatCount(Math.round(v))}/s`)}</td>
                <td className={styles.right}>{measured(n.conflicts, formatCount)}</td>
                <td className={styles.right}>{measured(n.parkedRows, formatCount)}</td>
                <td className={styles.right}>{measured(n.clockOffsetMs, (v) => `${v > 0 ? '+' : ''}${Math.round(v)} ms`)}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}
