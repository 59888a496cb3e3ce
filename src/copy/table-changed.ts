import { PgweaveError } from '../core/errors.ts';
import type { TableRef } from '../core/tables.ts';
import { displayName } from '../pg/identifiers.ts';

/** The schema of a table is no longer what was dumped [hard case 43]. */
export function tableChanged(table: TableRef, how: string, cause?: unknown): PgweaveError {
  return new PgweaveError('table-changed', `${displayName(table.schema, table.name)} ${how}: it was changed on the source after its schema was read`, {
    hint: 'Leave the source\'s schema alone while it is copied. Make the same change on the target and run the command again, or begin anew with --no-resume --drop-existing.', ...(cause === undefined ? {} : { cause }),
  });
}
