import type { Batch, ChangeLog } from '../change-log.ts';

/** Bytes of messages gathered for one target commit while behind: some 10,000 short rows. */
const batchBytes = 1_200_000;

/** Reads a log one batch ahead, so that a read goes on while whoever wants the batch turns to something else. */
export class ReadAhead {
  readonly #log: ChangeLog;
  readonly #signal: AbortSignal | undefined;
  #reading: Promise<unknown> | undefined;
  #arrived: Batch | undefined;

  constructor(log: ChangeLog, signal: AbortSignal | undefined) {
    this.#log = log;
    this.#signal = signal;
  }

  /** The next batch; undefined where `woken` resolves first: the read then goes on. Throws what the log throws. */
  async next(woken: Promise<void>): Promise<Batch | undefined> {
    if (!this.#arrived) {
      if (!this.#reading) {
        this.#reading = this.#log.read({ maxBytes: batchBytes, signal: this.#signal }).then((batch) => (this.#arrived = batch));
        // Whoever waits for it hears of a failure; where nobody does any more, the log's closing must not end the process.
        this.#reading.catch(() => undefined);
      }
      await Promise.race([this.#reading, woken]);
    }
    const batch = this.#arrived;
    if (!batch) return undefined;
    this.#arrived = undefined;
    this.#reading = undefined;
    return batch;
  }
}
