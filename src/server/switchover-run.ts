import { errorMessage, PgweaveError } from '../core/errors.ts';
import type { JobActions, SwitchoverRequest } from './job-control.ts';
import type { SwitchoverState } from './messages.ts';

/** The one switchover that may be under way at a time, started and stopped through the API. */
export class SwitchoverRun {
  #state: SwitchoverState = { status: 'idle', error: null };
  #abort: AbortController | null = null;

  get state(): SwitchoverState {
    return this.#state;
  }

  /** Starts it and returns; steps are events of the job. Throws where one runs already. */
  start(actions: JobActions, request: SwitchoverRequest): void {
    if (this.#abort) throw new PgweaveError('switchover-running', 'a switchover is running already', { hint: 'Watch its steps, or stop it with POST /api/v1/switchover/stop.' });
    const abort = new AbortController();
    this.#abort = abort;
    this.#state = { status: 'running', error: null };
    void actions.switchover(request, abort.signal).then(
      () => this.#end({ status: 'done', error: null }),
      (error: unknown) => {
        const hint = error instanceof PgweaveError ? (error.hint ?? null) : null;
        this.#end({ status: abort.signal.aborted ? 'stopped' : 'failed', error: { code: error instanceof PgweaveError ? error.code : 'unexpected', message: errorMessage(error), hint } });
      },
    );
  }

  /** Asks a running switchover to stop and give writes back. Throws where none runs. */
  stop(): void {
    if (!this.#abort) throw new PgweaveError('no-switchover', 'no switchover is running', { retry: 'never' });
    this.#abort.abort(new PgweaveError('switchover-stopped', 'the switchover was stopped on request', { hint: 'Writes were given back to the source. Start it again when it suits.' }));
  }

  #end(state: SwitchoverState): void {
    this.#state = state;
    this.#abort = null;
  }
}
