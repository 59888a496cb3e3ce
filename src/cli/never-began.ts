import { isRunning, readStateFile } from '../core/state-file.ts';
import { describeConnection, describeHosts, parseConninfo, type ConnectionSpec } from '../pg/conninfo.ts';
import { instanceJobs } from '../workflows/instance.ts';
import type { JobContext } from './common.ts';

/**
 * Whether the job's folder names other ends than those given, and yet nothing of the job is there: the run that wrote them down was refused, say because the target was not empty. Such ends bind
 * nobody. Where they cannot be looked at, or a process works on the job, they do.
 */
export async function neverBegan(context: JobContext, source: ConnectionSpec, target: ConnectionSpec): Promise<boolean> {
  const known = context.folder.identity();
  if (!known?.sourceUri || !known.targetUri || (known.source === describeConnection(source) && known.target === describeConnection(target))) return false;
  const status = await readStateFile(context.folder.path).catch(() => null);
  if ((status && isRunning(status)) || instanceJobs(context.folder)) return false;
  const { planCleanup } = await import('../workflows/cleanup.ts');
  const { leftovers, unreachable } = await planCleanup({ source: remembered(known.sourceUri, [source, target]), target: remembered(known.targetUri, [source, target]), job: context.job, signal: context.signal }).catch((error: unknown) => {
    if (context.signal.aborted) throw error;
    return { leftovers: [], unreachable: [error] };
  });
  return leftovers.length === 0 && unreachable.length === 0;
}

/** The folder keeps no passwords: that of a connection to the same server by the same role will do. */
function remembered(uri: string, given: readonly ConnectionSpec[]): ConnectionSpec {
  const spec = parseConninfo(uri);
  const alike = given.find((g) => g.user === spec.user && describeHosts(g) === describeHosts(spec));
  return alike ? { ...alike, database: spec.database } : spec;
}
