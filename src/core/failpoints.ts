/**
 * Named points where tests make the process die or fail, as in FreeBSD's fail(9). Off unless `PGWEAVE_FAILPOINTS` is set:
 * `name=kill` (SIGKILL to this process), `name=error` (throws), `name=exit`, `name=stall` (waits for ever), several separated by commas;
 * `name=kill@3` acts at the third pass only.
 */
interface Armed { readonly action: string; readonly at: number; passes: number }

let armed: Map<string, Armed> | undefined;

function load(): Map<string, Armed> {
  const points = new Map<string, Armed>();
  for (const item of (process.env['PGWEAVE_FAILPOINTS'] ?? '').split(',')) {
    const match = /^\s*([a-z0-9.-]+)=([a-z]+)(?:@(\d+))?\s*$/.exec(item);
    if (match) points.set(match[1]!, { action: match[2]!, at: Number(match[3] ?? 1), passes: 0 });
  }
  return points;
}

/** Arms failpoints inside this process, for tests that run a workflow in their own process. Pass '' to disarm all. */
export function armFailpoints(text: string): void {
  process.env['PGWEAVE_FAILPOINTS'] = text;
  armed = undefined;
}

function reached(name: string): Armed | undefined {
  armed ??= load();
  if (armed.size === 0) return undefined;
  const point = armed.get(name);
  if (!point) return undefined;
  point.passes += 1;
  return point.passes === point.at ? point : undefined;
}

/** Marks a point in synchronous code. Costs one map look-up when nothing is armed. */
export function failpointSync(name: string): void {
  const point = reached(name);
  if (!point) return;
  if (point.action === 'kill') process.kill(process.pid, 'SIGKILL');
  if (point.action === 'exit') process.exit(99);
  if (point.action === 'error') throw new Error(`failpoint ${name}`);
}

/** Marks a point where tests may kill, fail or stall the process. */
export async function failpoint(name: string): Promise<void> {
  const point = reached(name);
  if (!point) return;
  if (point.action === 'stall') await new Promise<never>(() => setInterval(() => undefined, 1000));
  if (point.action === 'kill') process.kill(process.pid, 'SIGKILL');
  if (point.action === 'exit') process.exit(99);
  if (point.action === 'error') throw new Error(`failpoint ${name}`);
}
