import type { JobSnapshot } from './snapshot.ts';

/** Whether the job streams back, from the new primary to the old one, after a switchover that kept the way back open. Its `source` is then the new primary. */
export function isOnWayBack(snapshot: Pick<JobSnapshot, 'wayBack' | 'slot'>): boolean {
  return snapshot.wayBack?.open === true && snapshot.slot?.slot === snapshot.wayBack.slot;
}
