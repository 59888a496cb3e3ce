import type { Emit } from '../../core/events.ts';
import type { HashOptions } from '../../verify/checksum-sql.ts';
import type { MomentOptions } from './moment.ts';

/** What the steps of a verification share. */
export interface VerifyRunContext extends MomentOptions {
  readonly hash: HashOptions;
  readonly jobs: number;
  readonly show: number;
  readonly values: boolean;
  readonly keep: number;
  readonly lagTimeoutMs: number;
  readonly emit: Emit;
}
