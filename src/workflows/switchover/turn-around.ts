import { sleep } from '../../core/abort.ts';
import type { Emit } from '../../core/events.ts';
import { oppositeJob } from '../../core/way-back.ts';
import type { ConnectionSpec } from '../../pg/conninfo.ts';
import { Session } from '../../pg/session.ts';
import { readSwitchover } from './record.ts';

/** Between which databases a follower streams, and under which name. */
export interface Direction {
  readonly source: ConnectionSpec;
  readonly target: ConnectionSpec;
  readonly job: string;
}

export interface Turn extends Direction {
  /** The other way round than before: then what was itself replicated must stay out. */
  readonly reversed: boolean;
}

const lookEveryMs = 200;
/** After this a switchover that has not ended is worth a word: the process that ran it may have died. */
const slowMs = 60_000;

/**
 * Where a follower goes on after a switchover asked it to end. Waits until the switchover has ended itself: undone, the follower goes on as before; done with a way back, it
 * turns around; done without, there is nothing more to follow (undefined).
 */
export async function turnAround(direction: Direction, emit: Emit, signal: AbortSignal): Promise<Turn | undefined> {
  const since = Date.now();
  let told = false;
  await using target = await Session.open(direction.target, { role: 'follow', job: direction.job, side: 'the target', signal });
  for (;;) {
    const record = await readSwitchover(target, direction.job);
    // On the way back the record is removed once both directions begin anew; then a way back of its own would have been told with the request.
    if (record === undefined) return undefined;
    if (record.status === 'undone') return { ...direction, reversed: false };
    if (record.status === 'done') return record.wayBack ? { source: direction.target, target: direction.source, job: oppositeJob(direction.job), reversed: true } : undefined;
    if (!told && Date.now() - since > slowMs) {
      told = true;
      emit({ type: 'warning', code: 'switchover-unfinished', message: 'the switchover that ended this follower has not come to an end', hint: `Run the same switchover again, or give it up: pgweave switchover --job ${direction.job} --unlock` });
    }
    await sleep(lookEveryMs, signal);
  }
}

/** Which way a job streams now: the other way, where it was switched over and the way back is open. */
export async function currentDirection(direction: Direction, signal: AbortSignal): Promise<Turn> {
  await using target = await Session.open(direction.target, { role: 'follow', job: direction.job, side: 'the target', signal });
  const record = await readSwitchover(target, direction.job);
  return record?.status === 'done' && record.wayBack ? { source: direction.target, target: direction.source, job: oppositeJob(direction.job), reversed: true } : { ...direction, reversed: false };
}
