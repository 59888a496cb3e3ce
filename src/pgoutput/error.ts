import { PgweaveError } from '../core/errors.ts';

/** Bytes that are no message of pgoutput: cut short, of an unknown kind, or with something left over. */
export class PgoutputError extends PgweaveError {
  /** Offset in bytes from the beginning of the message to the first byte that could not be read. */
  readonly offset: number;

  constructor(what: string, offset: number) {
    super('pgoutput-malformed', `malformed pgoutput message: ${what} at offset ${offset}`, {
      retry: 'never', hint: 'The server sent something that this version does not understand, or the bytes were damaged on the way. Please report it with the server\'s version.', details: { offset },
    });
    this.name = 'PgoutputError';
    this.offset = offset;
  }
}
