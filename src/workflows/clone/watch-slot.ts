import { SlotWatch } from '../../changes/slot-watch.ts';
import { errorMessage, PgweaveError } from '../../core/errors.ts';
import type { Emit } from '../../core/events.ts';
import type { ConnectionSpec } from '../../pg/conninfo.ts';

const everyMs = 5000;

/**
 * Watches the slot while rows are copied and nothing receives yet: the copy is when the source keeps most WAL for us. Ends with `await using`; what it cannot see the follower says later.
 */
export function watchSlot(options: { readonly source: ConnectionSpec; readonly job: string; readonly slot: string; readonly emit: Emit }): AsyncDisposable {
  const { emit } = options;
  const onLost = (error: Error) => {
    const hint = error instanceof PgweaveError ? error.hint : undefined;
    emit({ type: 'warning', code: 'slot-lost', message: errorMessage(error), ...(hint === undefined ? {} : { hint }) });
  };
  const watch = new SlotWatch({ ...options, everyMs, onLost, onTrouble: () => undefined });
  return { [Symbol.asyncDispose]: () => watch.stop() };
}
