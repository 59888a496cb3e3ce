import { readFileSync } from 'node:fs';
import type { Cluster } from '../../src/servers/cluster.ts';

/** Seconds of CPU that a measured job took, by who took them. What a busy machine leaves comparable. Linux. */
export interface CpuSeconds {
  readonly source: number;
  readonly target: number;
  /** The tool's own processes. */
  readonly tool: number;
}

/** CPU of a process itself and of all its children that have ended, seconds. Source: proc(5), /proc/pid/stat, fields 14 to 17, in ticks of 10 ms. */
function cpuOf(pid: number | 'self'): { own: number; children: number } {
  // The name in front may hold spaces and parentheses.
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /s, '').split(' ').map(Number);
  return { own: (fields[11]! + fields[12]!) / 100, children: (fields[13]! + fields[14]!) / 100 };
}

/** Runs `work` and counts: backends that ended meanwhile are counted by their postmaster, the tool's processes as children of this one. */
export async function countCpu<T>(source: Cluster, target: Cluster, work: () => Promise<T>): Promise<{ result: T; cpu: CpuSeconds }> {
  const look = () => ({ source: cpuOf(source.pid!).children, target: cpuOf(target.pid!).children, tool: cpuOf('self').children });
  const before = look();
  const result = await work();
  // A backend ends a moment after its client.
  await new Promise((resolve) => {
    setTimeout(resolve, 300);
  });
  const after = look();
  return { result, cpu: { source: after.source - before.source, target: after.target - before.target, tool: after.tool - before.tool } };
}
