import { spawn } from 'node:child_process';

/** Opens a URL in the person's browser where there is a desktop; without one nothing happens, and the URL stands on the terminal anyway. */
export function openUrl(url: string, env: NodeJS.ProcessEnv = process.env): void {
  const opener = openerFor(process.platform, env);
  if (!opener) return;
  const child = spawn(opener, [url], { stdio: 'ignore', detached: true });
  child.on('error', () => undefined);
  child.unref();
}

function openerFor(platform: NodeJS.Platform, env: NodeJS.ProcessEnv): string | null {
  if (platform === 'darwin') return 'open';
  if (platform === 'win32') return 'explorer';
  return env['DISPLAY'] || env['WAYLAND_DISPLAY'] ? 'xdg-open' : null;
}
