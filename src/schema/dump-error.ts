import { PgweaveError } from '../core/errors.ts';

/** What pg_dump's last words mean. It gives no SQLSTATE, so its text is all there is; it runs with English messages. */
export function dumpError(words: string): PgweaveError {
  const lines = words.split('\n').map((line) => line.replace(/^pg_dump(\.bin)?: (error: )?/, '').trim()).filter((line) => line !== '');
  const text = lines.slice(-4).join(' ').slice(0, 1500) || 'it gave no reason';
  const table = /permission denied for (?:table|sequence|view|schema|relation) (\S+)/.exec(text)?.[1];
  const hint = table
    ? `pg_dump locks each table (ACCESS SHARE), which needs SELECT on it: grant it on ${table} to this role (role pg_read_all_data has it on all), or leave the table out with --exclude-tables.`
    : /snapshot .* does not exist|invalid snapshot identifier/.test(text)
      ? 'The snapshot ended before the schema was read: the connection that held it was lost. Run the command again.'
      : 'The server\'s log says more. Run the command again: nothing was changed by the dump.';
  return new PgweaveError('dump-failed', `pg_dump failed on the source: ${text}`, { hint });
}
