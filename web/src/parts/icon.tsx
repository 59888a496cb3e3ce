import ui from './ui.module.css';

const paths = {
  ok: 'M8 1.75a6.25 6.25 0 1 0 0 12.5a6.25 6.25 0 1 0 0-12.5M5.2 8.2l2 2 3.6-4.2',
  warn: 'M8 2.2L14.4 13.4H1.6zM8 6.4v3.4M8 11.4v.4',
  bad: 'M5.4 1.8h5.2l3.6 3.6v5.2l-3.6 3.6H5.4l-3.6-3.6V5.4zM6 6l4 4M10 6l-4 4',
  pause: 'M8 1.75a6.25 6.25 0 1 0 0 12.5a6.25 6.25 0 1 0 0-12.5M6.4 5.6v4.8M9.6 5.6v4.8',
  copying: 'M8 1.75a6.25 6.25 0 0 1 0 12.5',
  indexes: 'M2.5 4h11M2.5 8h8M2.5 12h5',
  streaming: 'M2 5.5h10M9.5 3l2.7 2.5L9.5 8M2 11h12M11.5 8.8L14 11l-2.5 2.2',
  pending: 'M8 1.75a6.25 6.25 0 1 0 0 12.5a6.25 6.25 0 1 0 0-12.5',
  lost: 'M1.5 8h3.7M10.8 8h3.7M6.4 5.2l3.2 5.6',
  home: 'M2 2.5h5v5H2zM9 2.5h5v5H9zM2 9.5h5v4H2zM9 9.5h5v4H9z',
  list: 'M2 3.5h12M2 8h12M2 12.5h12',
  swap: 'M2 5h11M10 2l3 3-3 3M14 11H3M6 8l-3 3 3 3',
  fan: 'M4.6 8a1.6 1.6 0 1 1-3.2 0a1.6 1.6 0 1 1 3.2 0H13M4.3 7C7 3 9 3 13 3M4.3 9c2.7 4 4.7 4 8.7 4',
  mesh: 'M8 2l6 4.5-2.3 7H4.3L2 6.5zM8 2l3.7 11.5L2 6.5h12L4.3 13.5z',
  log: 'M3 2h10v12H3zM5.5 5.5h5M5.5 8h5M5.5 10.5h3',
  gear: 'M2 4.5h7M12 4.5h2M2 11.5h2M7 11.5h7M10.5 3v3M5.5 10v3',
  close: 'M4 4l8 8M12 4l-8 8',
  arrow: 'M2.5 8h11M9.5 4l4 4-4 4',
  theme: 'M8 1.75a6.25 6.25 0 1 0 0 12.5a6.25 6.25 0 1 0 0-12.5M8 1.75v12.5',
  search: 'M11.5 7a4.5 4.5 0 1 1-9 0a4.5 4.5 0 1 1 9 0M10.5 10.5L14 14',
  clock: 'M8 1.75a6.25 6.25 0 1 0 0 12.5a6.25 6.25 0 1 0 0-12.5M8 4.5V8l2.5 1.8',
  down: 'M8 3v10M4 9l4 4 4-4',
} as const;

export type IconName = keyof typeof paths;

/** Always hidden from readers: the word beside it says the same. */
export function Icon({ name, spin = false }: { readonly name: IconName; readonly spin?: boolean }) {
  return (
    <svg className={spin ? `${ui.icon} ${ui.spin}` : ui.icon} viewBox="0 0 16 16" fill="none" stroke="currentColor" strokeWidth="1.5" strokeLinecap="round" strokeLinejoin="round" aria-hidden="true">
      {name === 'copying' && <circle cx="8" cy="8" r="6.25" opacity=".35" />}
      {name === 'theme' && <path d="M8 1.75v12.5a6.25 6.25 0 0 0 0-12.5z" fill="currentColor" stroke="none" />}
      <path d={paths[name]} {...(name === 'pending' ? { strokeDasharray: '2.2 2.2' } : {})} />
    </svg>
  );
}
