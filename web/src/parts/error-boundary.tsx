import { Component, type ReactNode } from 'react';
import { Banner, Button } from './ui.tsx';
import ui from './ui.module.css';

/** Keeps a page that cannot be drawn from taking the others with it: most often one that a newer pgweave no longer serves. */
export class ErrorBoundary extends Component<{ readonly children: ReactNode }, { readonly error: Error | null }> {
  override state: { readonly error: Error | null } = { error: null };

  static getDerivedStateFromError(error: unknown): { error: Error } {
    return { error: error instanceof Error ? error : new Error(String(error)) };
  }

  override render(): ReactNode {
    const { error } = this.state;
    if (!error) return this.props.children;
    return (
      <Banner tone="bad" icon="bad">
        <b>This page cannot be drawn.</b> pgweave was restarted with another version, or the page has a fault. The job is not affected.
        <div className={ui.mono}>{error.message}</div>
        <Button small onClick={() => location.reload()}>Load it anew</Button>
      </Banner>
    );
  }
}
