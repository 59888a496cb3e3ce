import type { ChangeLog } from '../changes/change-log.ts';
import type { Emit } from '../core/events.ts';
import type { CloneHooks } from '../workflows/clone.ts';
import type { FollowOptions } from '../workflows/follow.ts';
import type { JobContext } from './common.ts';
import { spoolOf, type FollowFlags } from './follow.ts';

/** With --follow and --spool: changes are received from the moment when the slot is there, while rows are copied. */
export class CopySpool {
  readonly hooks: CloneHooks | undefined;
  #log: ChangeLog | undefined;

  constructor(flags: FollowFlags & { readonly follow?: boolean }, context: JobContext, ends: Pick<FollowOptions, 'source' | 'target' | 'job'>, emit: Emit) {
    const spool = spoolOf(flags);
    if (!flags.follow || spool === undefined) return;
    this.hooks = {
      onStreamStart: async (stream) => {
        const { spoolDuringCopy } = await import('../workflows/follow/open-log.ts');
        this.#log = await spoolDuringCopy({ ...ends, spool, origin: flags.origin, folder: context.folder, signal: context.signal }, stream, emit);
      },
    };
  }

  /** What receives already, for the follower. */
  get log(): ChangeLog | undefined {
    return this.#log;
  }

  /** Closing twice is harmless: a follower closes what it took over. */
  async close(): Promise<void> {
    await this.#log?.close();
  }
}
