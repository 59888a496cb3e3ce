import { useId, useState, type ButtonHTMLAttributes, type ReactNode } from 'react';
import { ApiError } from '../connection/api.ts';
import { Icon, type IconName } from './icon.tsx';
import ui from './ui.module.css';

export type Tone = 'ok' | 'run' | 'warn' | 'bad' | 'idx' | 'idle';

export function join(...names: readonly (string | false | undefined)[]): string {
  return names.filter(Boolean).join(' ');
}

export function Panel({ title, aside, className, bare = false, children }: { readonly title: string; readonly aside?: ReactNode; readonly className?: string | undefined; readonly bare?: boolean; readonly children?: ReactNode }) {
  const id = useId();
  return (
    <section className={join(ui.panel, className)} aria-labelledby={id}>
      <div className={ui.head}>
        <h2 id={id}>{title}</h2>
        {aside !== undefined && <span className={ui.aside}>{aside}</span>}
      </div>
      {bare ? children : <div className={ui.body}>{children}</div>}
    </section>
  );
}

export function State({ tone, icon, children, spin = false }: { readonly tone: Tone; readonly icon: IconName; readonly children: ReactNode; readonly spin?: boolean }) {
  return (
    <span className={join(ui.state, ui[tone])}>
      <Icon name={icon} spin={spin} />
      <span>{children}</span>
    </span>
  );
}

export function Tag({ tone, icon, children }: { readonly tone: Tone; readonly icon: IconName; readonly children: ReactNode }) {
  return (
    <span className={join(ui.tag, ui[tone])}>
      <Icon name={icon} />
      {children}
    </span>
  );
}

interface ButtonProps extends ButtonHTMLAttributes<HTMLButtonElement> {
  readonly look?: 'primary' | 'plain' | 'quiet';
  readonly small?: boolean;
}

export function Button({ look = 'plain', small = false, className, type = 'button', ...rest }: ButtonProps) {
  return <button type={type} className={join(ui.button, look === 'primary' && ui.primary, look === 'quiet' && ui.quiet, small && ui.small, className)} {...rest} />;
}

export function LinkButton({ href, primary = false, small = false, label, children }: { readonly href: string; readonly primary?: boolean; readonly small?: boolean; readonly label?: string; readonly children: ReactNode }) {
  return (
    <a className={join(ui.button, primary && ui.primary, small && ui.small)} href={href} aria-label={label}>
      {children}
    </a>
  );
}

/** One of a few, as a row of buttons. */
export function Choice<T extends string>({ label, options, value, onChange }: { readonly label: string; readonly options: readonly (readonly [T, string])[]; readonly value: T; readonly onChange: (value: T) => void }) {
  return (
    <span className={ui.choice} role="group" aria-label={label}>
      {options.map(([key, text]) => (
        <button key={key} type="button" aria-pressed={key === value} onClick={() => onChange(key)}>
          {text}
        </button>
      ))}
    </span>
  );
}

/** 0 to 1, with what it measures in words. */
export function Bar({ fraction, label, tone, large = false, className }: { readonly fraction: number; readonly label: string; readonly tone?: Tone; readonly large?: boolean; readonly className?: string | undefined }) {
  const percent = Math.min(100, Math.max(0, fraction * 100));
  return (
    <span className={join(ui.bar, tone && ui[tone], large && ui.large, className)} role="img" aria-label={label}>
      <i style={{ width: `${percent}%` }} />
    </span>
  );
}

/** A text of number and unit, the unit one step lighter: `11.6 s`, `1 h 5 min`. */
export function Figure({ text, size }: { readonly text: string; readonly size: 'big' | 'mid' }) {
  const parts = text.split(' ');
  return (
    <div className={ui[size]}>
      {parts.map((part, i) => (
        // The places of the parts are their only identity.
        <span key={i}>
          {i > 0 && ' '}
          {/^[\d.,-]/.test(part) ? part : <span className={ui.unit}>{part}</span>}
        </span>
      ))}
    </div>
  );
}

export function Pairs({ items }: { readonly items: readonly (readonly [string, ReactNode])[] }) {
  return (
    <dl className={ui.pairs}>
      {items.map(([name, value]) => (
        <Pair key={name} name={name} value={value} />
      ))}
    </dl>
  );
}

function Pair({ name, value }: { readonly name: string; readonly value: ReactNode }) {
  return (
    <>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </>
  );
}

export function Banner({ tone, icon, alert = true, children }: { readonly tone: 'warn' | 'bad'; readonly icon: IconName; readonly alert?: boolean; readonly children: ReactNode }) {
  return (
    <div className={join(ui.banner, ui[tone])} role={alert ? 'alert' : undefined}>
      <Icon name={icon} />
      <div>{children}</div>
    </div>
  );
}

/** SQL or a command that can be copied. */
export function CopyBlock({ text }: { readonly text: string }) {
  const [copied, setCopied] = useState(false);
  const copy = () => {
    void navigator.clipboard.writeText(text).then(() => {
      setCopied(true);
      window.setTimeout(() => setCopied(false), 1500);
    });
  };
  return (
    <div className={ui.copy}>
      <pre tabIndex={0}>{text}</pre>
      <Button small onClick={copy}>{copied ? 'Copied' : 'Copy'}</Button>
    </div>
  );
}

export interface Doing { readonly busy: boolean; readonly error: ApiError | null; readonly done: boolean }

/** Runs one request at a time and keeps what came of it, to be shown beside its button. */
export function useDoing(): Doing & { run: (work: () => Promise<unknown>) => void } {
  const [doing, setDoing] = useState<Doing>({ busy: false, error: null, done: false });
  const run = (work: () => Promise<unknown>) => {
    setDoing({ busy: true, error: null, done: false });
    void work().then(
      () => setDoing({ busy: false, error: null, done: true }),
      (error: unknown) => setDoing({ busy: false, done: false, error: error instanceof ApiError ? error : new ApiError(0, 'unexpected', String(error), null) }),
    );
  };
  return { ...doing, run };
}

/** What did not happen, in the server's words, and what to do. */
export function Refused({ error, what }: { readonly error: ApiError | null; readonly what: string }) {
  if (!error) return null;
  return (
    <Banner tone="bad" icon="bad">
      <b>{what} Nothing was changed.</b>
      <div className={ui.mono}>{error.message}</div>
      {error.hint !== null && <div className={ui.sub}>{error.hint}</div>}
    </Banner>
  );
}
