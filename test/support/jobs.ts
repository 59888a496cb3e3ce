import type { ConnectionSpec } from '../../src/pg/conninfo.ts';
import { planCleanup, runCleanup } from '../../src/workflows/cleanup.ts';

/** Removes what any job left on both sides, so that the databases can be dropped. */
export async function cleanupAll(source: ConnectionSpec, target: ConnectionSpec): Promise<void> {
  for (const [from, to] of [[source, target], [target, source]] as const) {
    const options = { source: from, target: to, job: 'any', all: true };
    await runCleanup(await planCleanup(options), { ...options, force: true });
  }
}
