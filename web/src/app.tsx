import { lazy, Suspense, useEffect, useState, useSyncExternalStore, type SubmitEvent } from 'react';
import { clockTime, phaseWords, routeOf } from '../../src/core/words.ts';
import { formatDuration } from '../../src/core/units.ts';
import type { JobView } from '../../src/server/messages.ts';
import styles from './app.module.css';
import { setToken } from './connection/api.ts';
import type { Feed, Shown } from './connection/feed.ts';
import type { LinkState } from './connection/link.ts';
import { hasEnded } from './facts.ts';
import { Overview } from './pages/overview.tsx';
import { ErrorBoundary } from './parts/error-boundary.tsx';
import { Icon, type IconName } from './parts/icon.tsx';
import { Banner, Button, join } from './parts/ui.tsx';
import ui from './parts/ui.module.css';
import { useRoute, type Page, type Route } from './route.ts';
import { isOnlyTopology } from './topology-facts.ts';

// The overview is the first paint; what is behind a click is fetched by then.
const Tables = lazy(async () => ({ default: (await import('./pages/tables.tsx')).Tables }));
const Switchover = lazy(async () => ({ default: (await import('./pages/switchover.tsx')).Switchover }));
const FanOut = lazy(async () => ({ default: (await import('./pages/fan-out.tsx')).FanOut }));
const Mesh = lazy(async () => ({ default: (await import('./pages/mesh.tsx')).Mesh }));
const Logs = lazy(async () => ({ default: (await import('./pages/logs.tsx')).Logs }));
const Configuration = lazy(async () => ({ default: (await import('./pages/configuration.tsx')).Configuration }));

/** `short` is for the tabs of a phone. */
interface Entry { readonly page: Page; readonly title: string; readonly short?: string; readonly icon: IconName }

const entries: readonly Entry[] = [
  { page: 'overview', title: 'Overview', icon: 'home' }, { page: 'tables', title: 'Tables', icon: 'list' }, { page: 'switchover', title: 'Switchover', icon: 'swap' },
  { page: 'fan-out', title: 'Fan-out', icon: 'fan' }, { page: 'mesh', title: 'Mesh', icon: 'mesh' }, { page: 'logs', title: 'Log', icon: 'log' },
  { page: 'configuration', title: 'Configuration', short: 'Config', icon: 'gear' },
];

/** Fan-out and mesh have their pages only where there is one; where there is nothing else, they stand in for the pages of a migration. */
function entriesFor(view: JobView | null): readonly Entry[] {
  const kind = view?.summary.topology?.kind;
  const shown = entries.filter((e) => (e.page !== 'fan-out' && e.page !== 'mesh') || e.page === kind);
  return view && isOnlyTopology(view.summary) ? shown.filter((e) => e.page !== 'overview' && e.page !== 'tables' && e.page !== 'switchover') : shown;
}

/** The page that an address means: the first one of the job where it is none of its own. */
function pageFor(route: Route, view: JobView | null): Page {
  const shown = entriesFor(view);
  return shown.some((e) => e.page === route.page) || !view || !isOnlyTopology(view.summary) ? route.page : shown[0]!.page;
}

export function App({ feed }: { readonly feed: Feed }) {
  const shown = useSyncExternalStore(feed.subscribe, feed.read);
  const asked = useRoute();
  const { view, link } = shown;
  const route: Route = { ...asked, page: pageFor(asked, view) };
  const entry = entries.find((e) => e.page === route.page)!;
  useEffect(() => {
    document.title = view ? `${view.summary.source?.database ?? view.summary.job} ${entry.title.toLowerCase()}, pgweave` : 'pgweave';
  }, [view, entry.title]);
  if (link.state.name === 'refused') return <TokenPage again={link.state.tokenGiven} onToken={() => feed.tryNow()} />;
  const current = link.state.name === 'live' && view?.state.running === true;
  const fill = route.page === 'tables' || route.page === 'logs';
  return (
    <>
      <a className={styles.skip} href="#main" onClick={(e) => { e.preventDefault(); document.getElementById('main')?.focus(); }}>Go to the content</a>
      <div className={styles.app}>
        <aside className={styles.side}>
          <div className={styles.brand}><Mark /><span>pgweave</span></div>
          <Navigation view={view} page={route.page} className={styles.nav} label="Main" />
          <div className={styles.foot}>
            {view && <>pgweave {view.state.version}<br /></>}
            Times are UTC<br />
            <a href="/api/docs">API</a>
          </div>
        </aside>
        <div className={styles.main}>
          <header className={styles.top}>
            <h1>{route.page === 'overview' ? titleOf(view) : entry.title}</h1>
            <Way view={view} page={route.page} />
            <div className={styles.right}>
              <Live shown={shown} />
              <Button look="quiet" className={ui.square} aria-label="Change between light and dark" onClick={changeTheme}><Icon name="theme" /></Button>
            </div>
          </header>
          <main className={join(styles.page, fill && styles.fill, route.page === 'tables' && styles.wide)} id="main" tabIndex={-1}>
            <LinkBanner shown={shown} onTry={() => feed.tryNow()} />
            <div className={join(!current && view !== null && styles.old)} style={{ display: 'contents' }} data-current={current}>
              {view ? (
                <ErrorBoundary key={route.page}>
                  <Suspense fallback={<p className={ui.sub}>Loading</p>}>
                    <PageOf route={route} view={view} shown={shown} current={current} onTry={() => feed.tryNow()} />
                  </Suspense>
                </ErrorBoundary>
              ) : <p className={ui.sub}>Waiting for the first numbers.</p>}
            </div>
          </main>
        </div>
      </div>
      <Navigation view={view} page={route.page} className={styles.tabs} label="Main, phone" short />
    </>
  );
}

export interface PageProps {
  readonly view: JobView;
  /** This machine's clock when the view came. */
  readonly receivedAt: number;
  /** Whether the numbers are of now: connected, and a job runs. Otherwise nothing moves and nothing can be asked for. */
  readonly current: boolean;
  readonly route: Route;
  readonly lost: boolean;
  readonly onTry: () => void;
}

function PageOf({ route, view, shown, current, onTry }: { readonly route: Route; readonly view: JobView; readonly shown: Shown; readonly current: boolean; readonly onTry: () => void }) {
  const props: PageProps = { view, receivedAt: shown.receivedAt, current, route, lost: shown.link.state.name === 'lost' && !hasEnded(view), onTry };
  switch (route.page) {
    case 'tables': return <Tables {...props} />;
    case 'switchover': return <Switchover {...props} />;
    case 'fan-out': return <FanOut {...props} />;
    case 'mesh': return <Mesh {...props} />;
    case 'logs': return <Logs {...props} />;
    case 'configuration': return <Configuration {...props} />;
    default: return <Overview {...props} />;
  }
}

function titleOf(view: JobView | null): string {
  return view ? (view.summary.source?.database ?? `Job ${view.summary.job}`) : 'pgweave';
}

function Way({ view, page }: { readonly view: JobView | null; readonly page: Page }) {
  const way = view && routeOf(view.summary.source, view.summary.target);
  if (!way) return null;
  return (
    <div className={styles.way}>
      {page !== 'overview' && `${way.database}, `}{way.from} <Icon name="arrow" /><span className={ui.hidden}>to</span> {way.to}
    </div>
  );
}

function Navigation({ view, page, className, label, short = false }: { readonly view: JobView | null; readonly page: Page; readonly className: string | undefined; readonly label: string; readonly short?: boolean }) {
  const paused = view?.summary.totals.tablesPaused ?? 0;
  const broken = view?.summary.topology?.edges.filter((e) => e.state === 'not-connected').length ?? 0;
  return (
    <nav className={className} aria-label={label}>
      {entriesFor(view).map((e) => (
        <a key={e.page} href={`#/${e.page}`} aria-current={e.page === page ? 'page' : undefined}>
          <Icon name={e.icon} />
          <span className={styles.label}>{short ? (e.short ?? e.title) : e.title}</span>
          {e.page === 'tables' && paused > 0 && <span className={styles.count}><Icon name="pause" />{paused}<span className={ui.hidden}> paused</span></span>}
          {(e.page === 'fan-out' || e.page === 'mesh') && broken > 0 && <span className={join(styles.count, styles.bad)}><Icon name="lost" />{broken}<span className={ui.hidden}> not connected</span></span>}
        </a>
      ))}
    </nav>
  );
}

function Live({ shown }: { readonly shown: Shown }) {
  const { state } = shown.link;
  const { view } = shown;
  const [tone, icon, text] = liveWords(state, view);
  return <span className={join(styles.live, tone !== null && styles[tone])} role="status"><Icon name={icon} /><span>{text}</span></span>;
}

function liveWords(state: LinkState, view: JobView | null): readonly [string | null, IconName, string] {
  const at = view ? clockTime(view.summary.writtenAt, Date.now()) : '';
  if (state.name === 'lost') return ['bad', 'lost', `Not connected since ${clockTime(new Date(state.since).toISOString(), Date.now())}`];
  if (state.name === 'stale') return ['warn', 'clock', `Stale, last update ${at}`];
  if (state.name !== 'live' || !view) return ['idle', 'pending', 'Connecting'];
  if (!view.state.running) return ['warn', 'clock', `Nothing runs, written ${at}`];
  return [null, 'ok', `Live, updated ${at}`];
}

/** Says how old the numbers are, as soon as they are old. */
function LinkBanner({ shown, onTry }: { readonly shown: Shown; readonly onTry: () => void }) {
  const now = useSeconds(shown.link.state.name === 'stale' || shown.link.state.name === 'lost');
  const { state } = shown.link;
  const { view } = shown;
  if (state.name === 'stale') return <Banner tone="warn" icon="clock"><b>The numbers are {formatDuration(now - state.at)} old.</b> {view && `They are of ${clockTime(view.summary.writtenAt, now)}. `}The page goes on trying.</Banner>;
  if (state.name === 'lost' && view && hasEnded(view)) {
    return <Banner tone="warn" icon="clock"><b>The job has ended: {phaseWords[view.summary.phase]}.</b> pgweave no longer answers here; these are its last numbers, of {clockTime(view.summary.writtenAt, now)}.</Banner>;
  }
  if (state.name === 'lost') {
    const next = state.nextTryAt === null ? '' : ` The next try is in ${formatDuration(Math.max(0, state.nextTryAt - now))}.`;
    return (
      <Banner tone="bad" icon="lost">
        <b>Not connected to pgweave since {clockTime(new Date(state.since).toISOString(), now)}.</b> {view ? `The numbers are of ${clockTime(view.summary.writtenAt, now)}. ` : ''}The job itself may well go on.{next}{' '}
        <Button small onClick={onTry}>Try now</Button>
      </Banner>
    );
  }
  if (state.name === 'live' && view && !view.state.running) return <Banner tone="warn" icon="clock" alert={false}><b>Nothing runs now.</b> {view.state.note}</Banner>;
  return null;
}

/** Now, anew each second while it is wanted. */
function useSeconds(wanted: boolean): number {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    if (!wanted) return;
    setNow(Date.now());
    const timer = window.setInterval(() => setNow(Date.now()), 1000);
    return () => window.clearInterval(timer);
  }, [wanted]);
  return now;
}

function TokenPage({ again, onToken }: { readonly again: boolean; readonly onToken: () => void }) {
  const [text, setText] = useState('');
  const submit = (event: SubmitEvent<HTMLFormElement>) => {
    event.preventDefault();
    setToken(text.trim());
    onToken();
  };
  return (
    <main className={styles.token} id="main">
      <h1>This pgweave wants a token</h1>
      <p className={ui.sub}>It is the value that the job was started with: --api-token or PGWEAVE_API_TOKEN. It is kept for this tab only.</p>
      {again && <Banner tone="bad" icon="bad">That token is not right.</Banner>}
      <form onSubmit={submit}>
        <label htmlFor="token">Token</label>
        <input id="token" className={ui.input} type="password" autoComplete="off" value={text} onChange={(e) => setText(e.target.value)} />
        <Button type="submit" look="primary" disabled={text.trim() === ''}>Open the dashboard</Button>
      </form>
    </main>
  );
}

function changeTheme(): void {
  const root = document.documentElement;
  const dark = root.dataset['theme'] ? root.dataset['theme'] === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  root.dataset['theme'] = dark ? 'light' : 'dark';
  try {
    localStorage.setItem('pgweave-theme', root.dataset['theme']);
  } catch {
    // Storage is forbidden: the choice lasts as long as the page.
  }
  window.dispatchEvent(new Event('pgweave-theme'));
}

function Mark() {
  return (
    <svg width="20" height="20" viewBox="0 0 20 20" fill="none" stroke="currentColor" strokeWidth="1.8" strokeLinecap="round" aria-hidden="true">
      <path d="M2 6h5l6 8h5M2 14h5l2-2.7M11 8.7L13 6h5" />
    </svg>
  );
}
