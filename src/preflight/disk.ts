import { readFileSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { formatBytes } from '../core/units.ts';
import { advice, check, type Check } from './check.ts';
import type { CheckedServer, PreflightContext } from './context.ts';
import { providerNames } from './provider.ts';

/** Storage of these grows by itself. */
const elastic = new Set(['aurora', 'alloydb', 'neon']);

/**
 * Room on the target's disk. SQL cannot tell it; where the server runs on this machine its data folder is looked at, elsewhere the need is
 * named and the rest left to the user.
 */
export function diskCheck(target: CheckedServer, source: CheckedServer | undefined, context: PreflightContext): Check[] {
  if (source === undefined) return [];
  const bytes = (tables: typeof context.tables) => tables.reduce((sum, t) => sum + Number(t.bytes), 0);
  const taken = bytes(context.tables.filter((t) => t.mode === 'copy'));
  // Indexes come on top: in the share that they have of the source's database. Row filters make it less; how much is not known.
  const all = context.allTablesBytes;
  const need = Math.max(taken, all === 0 ? 0 : Math.round(Number(source.identity.database_bytes ?? 0n) * (taken / all)));
  const free = localFreeBytes(target);
  const facts = { neededBytes: need, freeBytes: free ?? null };
  if (free === undefined) {
    const grows = elastic.has(target.provider) ? ` ${providerNames[target.provider]} grows its storage by itself.` : '';
    return [check('disk-room', 'target', 'ok', `about ${formatBytes(need)} needed on the target; how much is free cannot be known by SQL.${grows}`, { facts })];
  }
  if (free < need) return [check('disk-room', 'target', 'fail', `about ${formatBytes(need)} needed on the target, ${formatBytes(free)} free`, { facts, fix: advice('target', 'enlarge the disk, or leave tables out with --exclude-tables') })];
  return [check('disk-room', 'target', free < need * 1.3 ? 'warn' : 'ok', `about ${formatBytes(need)} needed on the target, ${formatBytes(free)} free`, { facts })];
}

function localFreeBytes(server: CheckedServer): number | undefined {
  const { host, port } = server.session.host;
  const folder = server.settings.get('data_directory')?.setting;
  if (!folder || !(host.startsWith('/') || ['localhost', '127.0.0.1', '::1'].includes(host))) return undefined;
  try {
    // A tunnel or a container may stand behind a local port: only the server that says so in its own pid file counts (line 4 is its port).
    if (Number(readFileSync(join(folder, 'postmaster.pid'), 'utf8').split('\n')[3]) !== port) return undefined;
    const { bavail, bsize } = statfsSync(folder);
    return bavail * bsize;
  } catch {
    return undefined;
  }
}
