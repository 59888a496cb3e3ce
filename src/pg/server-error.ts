import { redact } from '../core/redact.ts';

/**
 * An error that a server reported on a connection whose frames we read ourselves; the same property names as node-postgres gives its errors.
 * Source: PostgreSQL documentation, "Error and Notice Message Fields".
 */
export class ServerError extends Error {
  /** SQLSTATE. */
  readonly code: string;
  readonly severity: string;
  readonly detail: string | undefined;
  readonly hint: string | undefined;
  readonly where: string | undefined;
  readonly schema: string | undefined;
  readonly table: string | undefined;
  readonly column: string | undefined;
  readonly constraint: string | undefined;

  constructor(fields: ReadonlyMap<string, string>) {
    super(redact(fields.get('M') ?? 'the server reported an error without a message'));
    this.name = 'ServerError';
    this.code = fields.get('C') ?? 'XX000';
    this.severity = fields.get('V') ?? fields.get('S') ?? 'ERROR';
    this.detail = fields.get('D');
    this.hint = fields.get('H');
    this.where = fields.get('W');
    this.schema = fields.get('s');
    this.table = fields.get('t');
    this.column = fields.get('c');
    this.constraint = fields.get('n');
  }

  /** Reads the body of an ErrorResponse. */
  static parse(body: Buffer): ServerError {
    const fields = new Map<string, string>();
    for (let at = 0; at < body.length && body[at] !== 0; ) {
      const end = body.indexOf(0, at + 1);
      if (end < 0) break;
      fields.set(String.fromCharCode(body[at]!), body.toString('utf8', at + 1, end));
      at = end + 1;
    }
    return new ServerError(fields);
  }
}
