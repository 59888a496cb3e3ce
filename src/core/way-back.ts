import type { JobSnapshot } from './snapshot.ts';

const ending = '_reverse';

/** The job that streams the other way: `shop` and `shop_reverse` are each other's. */
export function oppositeJob(job: string): string {
  return job.endsWith(ending) ? job.slice(0, -ending.length) : `${job}${ending}`;
}

/** Whether a job of this name streams from a new primary to the old one. */
export function isWayBack(job: string): boolean {
  return job.endsWith(ending);
}

/** Whether the job streams back, from the new primary to the old one, after a switchover that kept the way back open. Its `source` is then the new primary. */
export function isOnWayBack(snapshot: Pick<JobSnapshot, 'wayBack' | 'slot'>): boolean {
  return snapshot.wayBack?.open === true && snapshot.slot?.slot === snapshot.wayBack.slot;
}
