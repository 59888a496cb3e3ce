import { memo, useCallback, useEffect, useMemo, useRef, useState, type KeyboardEvent } from 'react';
import type { TableStatus } from '../../../src/core/snapshot.ts';
import { formatBytes, formatCount } from '../../../src/core/units.ts';
import { selectTables, type TableSort } from '../../../src/server/table-query.ts';
import type { PageProps } from '../app.tsx';
import { countTables, matchesFilter, tableName, tableWord, type TableFilter } from '../facts.ts';
import { Icon, type IconName } from '../parts/icon.tsx';
import { Bar, Button, join, State, type Tone } from '../parts/ui.tsx';
import ui from '../parts/ui.module.css';
import { useMedia, useVisibleRange } from '../parts/virtual.ts';
import { TableDrawer } from './table-drawer.tsx';
import styles from './tables.module.css';

const filters: readonly (readonly [TableFilter, string, Tone, IconName])[] = [
  ['all', 'All', 'idle', 'list'], ['paused', 'Paused', 'warn', 'pause'], ['copying', 'Copying', 'run', 'copying'], ['indexes', 'Indexes', 'idx', 'indexes'], ['pending', 'Pending', 'idle', 'pending'],
  ['copied', 'Copied', 'ok', 'ok'], ['streaming', 'Streaming', 'ok', 'streaming'],
];

interface Column { readonly sort: TableSort; readonly title: string; readonly className: string | undefined; readonly right: boolean }
const columns: readonly Column[] = [
  { sort: 'name', title: 'Table', className: styles.name, right: false }, { sort: 'state', title: 'State', className: styles.status, right: false },
  { sort: 'bytes', title: 'Size', className: styles.size, right: true }, { sort: 'rows', title: 'Rows', className: styles.rows, right: true },
  { sort: 'changes', title: 'Changes applied', className: styles.changes, right: true },
];

export function Tables({ view, current, route }: PageProps) {
  const [filter, setFilter] = useState<TableFilter>(() => filters.find(([key]) => key === route.query.get('state'))?.[0] ?? 'all');
  const [search, setSearch] = useState('');
  const [order, setOrder] = useState<{ sort: TableSort; order: 'asc' | 'desc' }>({ sort: 'state', order: 'asc' });
  const [open, setOpen] = useState<string | null>(null);
  const searchBox = useRef<HTMLInputElement>(null);
  const { tables } = view;

  useEffect(() => {
    const wanted = filters.find(([key]) => key === route.query.get('state'))?.[0];
    if (wanted) setFilter(wanted);
    const schema = route.query.get('open');
    const name = route.query.get('name');
    if (schema !== null && name !== null) setOpen(tableName({ schema, name }));
  }, [route]);

  useEffect(() => {
    const focusSearch = (event: globalThis.KeyboardEvent) => {
      if (event.key !== '/' || event.target instanceof HTMLInputElement) return;
      event.preventDefault();
      searchBox.current?.focus();
    };
    window.addEventListener('keydown', focusSearch);
    return () => window.removeEventListener('keydown', focusSearch);
  }, []);

  const counts = useMemo(() => countTables(tables), [tables]);
  const found = useMemo(() => selectTables(filter === 'all' ? tables : tables.filter((t) => matchesFilter(t, filter)), { search, ...order }), [tables, filter, search, order]);
  const shown = open === null ? null : (tables.find((t) => tableName(t) === open) ?? null);
  const bytes = useMemo(() => found.reduce((sum, t) => sum + t.bytes, 0), [found]);

  return (
    <div className={join(styles.all, shown !== null && styles.beside)}>
      <div className={styles.tools}>
        <label className={styles.search}>
          <span className={ui.hidden}>Search tables</span>
          <Icon name="search" />
          <input ref={searchBox} className={ui.input} type="search" placeholder={`Search ${formatCount(counts.all)} tables`} autoComplete="off" value={search} onChange={(e) => setSearch(e.target.value)} />
          <kbd>/</kbd>
        </label>
        <div className={styles.chips} role="group" aria-label="State">
          {filters.filter(([key]) => key === 'all' || counts[key] > 0 || key === filter).map(([key, word, tone, icon]) => (
            <button key={key} type="button" className={styles.chip} aria-pressed={key === filter} onClick={() => setFilter(key)}>
              <span className={ui[tone]}><Icon name={icon} /></span>{word} <b>{formatCount(counts[key])}</b>
            </button>
          ))}
        </div>
      </div>
      <div className={styles.list}>
        <Grid tables={found} order={order} onOrder={setOrder} open={open} onOpen={setOpen} />
        {found.length === 0 && (
          <div className={styles.empty}>
            <b>No table matches</b>
            <span className={ui.sub}>{counts.all === 0 ? 'The job has planned no tables yet.' : 'Change the search or the state.'}</span>
            {counts.all > 0 && <Button onClick={() => { setSearch(''); setFilter('all'); }}>Show all {formatCount(counts.all)}</Button>}
          </div>
        )}
        <div className={styles.foot}>
          <span>{formatCount(found.length)} tables, {formatBytes(bytes)}</span>
          <span className={styles.keys}>↑ ↓ move · Enter opens · Esc closes</span>
        </div>
      </div>
      {shown && <TableDrawer key={tableName(shown)} table={shown} view={view} current={current} onClose={() => { setOpen(null); focusRow(tableName(shown)); }} />}
    </div>
  );
}

/** Back to the row that the drawer was opened from, where it is still in the list. */
function focusRow(name: string): void {
  requestAnimationFrame(() => document.querySelector<HTMLElement>(`[data-table="${CSS.escape(name)}"]`)?.focus());
}

interface GridProps {
  readonly tables: readonly TableStatus[];
  readonly order: { sort: TableSort; order: 'asc' | 'desc' };
  readonly onOrder: (order: { sort: TableSort; order: 'asc' | 'desc' }) => void;
  readonly open: string | null;
  readonly onOpen: (name: string) => void;
}

function Grid({ tables, order, onOrder, open, onOpen }: GridProps) {
  const box = useRef<HTMLDivElement>(null);
  const narrow = useMedia('(max-width: 719px)');
  const rowHeight = narrow ? 64 : 36;
  const { first, last } = useVisibleRange(box, rowHeight, tables.length);
  const [active, setActive] = useState(0);
  const at = Math.min(active, Math.max(0, tables.length - 1));

  const move = (event: KeyboardEvent) => {
    const page = Math.max(1, Math.floor((box.current?.clientHeight ?? 0) / rowHeight) - 1);
    const steps: Readonly<Record<string, number>> = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -tables.length, End: tables.length };
    const step = steps[event.key];
    if (step === undefined || tables.length === 0) return;
    event.preventDefault();
    const next = Math.min(tables.length - 1, Math.max(0, at + step));
    setActive(next);
    keepInSight(box.current!, next, rowHeight);
    // The row may have to be drawn first.
    requestAnimationFrame(() => box.current?.querySelector<HTMLElement>(`[aria-rowindex="${next + 2}"]`)?.focus({ preventScroll: true }));
  };
  const openRow = useCallback((index: number, name: string) => { setActive(index); onOpen(name); }, [onOpen]);

  // The active row is drawn wherever it is, so that it does not lose the focus when it is scrolled away.
  const drawn = new Set<number>();
  for (let i = first; i < Math.min(last, tables.length); i += 1) drawn.add(i);
  if (tables.length > 0) drawn.add(at);
  const sort = ({ sort: key }: Column) => onOrder({ sort: key, order: order.sort === key && order.order === 'asc' ? 'desc' : 'asc' });
  return (
    <div className={styles.grid} role="grid" aria-label="Tables" aria-rowcount={tables.length + 1} aria-colcount={columns.length}>
      <div className={styles.header} role="row" aria-rowindex={1}>
        {columns.map((c) => (
          <div key={c.sort} role="columnheader" className={join(c.className, c.right && styles.right)} aria-sort={order.sort === c.sort ? (order.order === 'asc' ? 'ascending' : 'descending') : 'none'}>
            <button type="button" onClick={() => sort(c)}>{c.title}<Icon name="down" /></button>
          </div>
        ))}
      </div>
      <div ref={box} className={styles.scroll} role="rowgroup" onKeyDown={move}>
        <div className={styles.space} role="presentation" style={{ height: tables.length * rowHeight }}>
          {[...drawn].map((i) => {
            const t = tables[i]!;
            return <Row key={tableName(t)} table={t} index={i} top={i * rowHeight} focusable={i === at} open={tableName(t) === open} onOpen={openRow} />;
          })}
        </div>
      </div>
    </div>
  );
}

function keepInSight(box: HTMLElement, index: number, rowHeight: number): void {
  const top = index * rowHeight;
  if (top < box.scrollTop) box.scrollTop = top;
  else if (top + rowHeight > box.scrollTop + box.clientHeight) box.scrollTop = top + rowHeight - box.clientHeight;
}

interface RowProps { readonly table: TableStatus; readonly index: number; readonly top: number; readonly focusable: boolean; readonly open: boolean; readonly onOpen: (index: number, name: string) => void }

const Row = memo(function Row({ table: t, index, top, focusable, open, onOpen }: RowProps) {
  const word = tableWord(t);
  const changes = t.inserts + t.updates + t.deletes;
  const name = tableName(t);
  return (
    <div
      className={join(styles.row, open && styles.open)} role="row" aria-rowindex={index + 2} aria-selected={open} data-table={name} tabIndex={focusable ? 0 : -1} style={{ transform: `translateY(${top}px)` }}
      onClick={() => onOpen(index, name)} onKeyDown={(e) => openOnEnter(e, () => onOpen(index, name))}
    >
      <div role="gridcell" className={styles.name}><i>{t.schema}.</i>{t.name}</div>
      <div role="gridcell" className={styles.status}>
        <State tone={word.tone} icon={word.icon}>{word.word}</State>
        {word.fraction !== null && <Bar className={styles.bar} fraction={word.fraction} label={word.word} />}
        {t.state.name === 'paused' && <span className={styles.why}>{t.state.reason}</span>}
      </div>
      <div role="gridcell" className={join(styles.size, styles.right)}>{formatBytes(t.bytes)}</div>
      <div role="gridcell" className={join(styles.rows, styles.right)}>{rowsText(t)}</div>
      <div role="gridcell" className={join(styles.changes, styles.right, changes === 0 && styles.zero)}>{changes === 0 ? '-' : formatCount(changes)}</div>
    </div>
  );
});

function openOnEnter(event: KeyboardEvent, open: () => void): void {
  if (event.key !== 'Enter') return;
  // The drawer takes the focus to its close button, which the same key would press.
  event.preventDefault();
  open();
}

function rowsText(t: TableStatus): string {
  if (t.rowsDone > 0) return t.rows > 0 && t.state.name === 'copying' ? `${formatCount(t.rowsDone)} of ~${formatCount(t.rows)}` : formatCount(t.rowsDone);
  return t.rows < 0 ? '-' : `~${formatCount(t.rows)}`;
}
