import { hasSqlDetails, loadModule, parseSync, type Node } from 'libpg-query';
import { PgweaveError } from '../core/errors.ts';

/** One statement of a dump: its text without the semicolon, and PostgreSQL's own parse tree of it. */
export interface CutStatement {
  readonly sql: string;
  readonly node: Node;
}

/**
 * Chunks of about this many bytes are parsed at a time: a parse tree takes some thirty times the memory of its text.
 */
const chunkBytes = 128 * 1024;
/** How pg_dump begins each entry. The same bytes can stand in a string: then the chunk does not parse, and the next place is tried. */
const entryMark = Buffer.from('\n--\n-- ');

/** Cuts a dump into statements with PostgreSQL's parser. Throws `dump-unreadable` where it does not parse. */
export async function* cutStatements(dump: string): AsyncGenerator<CutStatement> {
  await loadModule();
  const bytes = Buffer.from(withoutRestrict(dump), 'utf8');
  let start = 0;
  while (start < bytes.length) {
    let end = start;
    for (;;) {
      const mark = bytes.indexOf(entryMark, Math.max(end + 1, start + chunkBytes));
      end = mark < 0 ? bytes.length : mark;
      const chunk = bytes.subarray(start, end);
      const parsed = tryParse(chunk, end === bytes.length);
      if (!parsed) continue;
      for (const { stmt, stmt_location: from = 0, stmt_len: length } of parsed) {
        if (stmt) yield { sql: chunk.toString('utf8', from, length === undefined || length === 0 ? chunk.length : from + length).trim(), node: stmt };
      }
      break;
    }
    start = end;
    // A long dump must not keep timers and signals waiting.
    await new Promise((resolve) => setImmediate(resolve));
  }
}

function tryParse(chunk: Buffer, last: boolean) {
  try {
    return parseSync(chunk.toString('utf8')).stmts ?? [];
  } catch (error) {
    if (!last) return undefined;
    const position = hasSqlDetails(error) ? error.sqlDetails?.cursorPosition ?? 0 : 0;
    const near = chunk.toString('utf8').slice(Math.max(0, position - 60), position + 60).replace(/\s+/g, ' ');
    throw new PgweaveError('dump-unreadable', `the schema dump does not parse: ${(error as Error).message} near "${near}"`, { hint: 'The source holds something that PostgreSQL 18\'s parser does not know. Please report it.', cause: error });
  }
}

/**
 * Takes out the psql commands `\restrict KEY` and `\unrestrict KEY`, which pg_dump prints since its August 2025 releases (CVE-2025-8714): the first
 * before any statement, the second, with the same key, at the end. Lines like these inside of strings are left alone.
 */
function withoutRestrict(dump: string): string {
  const head = /^(?:--[^\n]*\n|[ \t]*\n)*\\restrict (\S+)\r?\n/.exec(dump);
  if (!head) return dump;
  const body = dump.slice(head[0].length);
  const close = body.lastIndexOf(`\n\\unrestrict ${head[1]}`);
  return close < 0 ? body : body.slice(0, close + 1) + body.slice(close + 1 + `\\unrestrict ${head[1]}`.length);
}
