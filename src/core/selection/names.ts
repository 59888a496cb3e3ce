import { usageError } from '../errors.ts';

/** One part of a name as it was written. An unquoted `*` stands for any run of characters; nothing is folded to lower case. */
export interface NamePart {
  readonly text: string;
  readonly quoted: boolean;
}

/**
 * The name of a table in a rule. `qualifier` is what stands before the only dot: a schema, or a database with schema `public` meant; which of both
 * only the catalog can tell. Without any of the three the schema is `public`.
 */
export interface TablePattern {
  readonly database?: NamePart;
  readonly schema?: NamePart;
  readonly qualifier?: NamePart;
  readonly name: NamePart;
}

const hint = 'Write [database.][schema.]table; put names that hold dots, commas, colons or stars in double quotes: shop."Odd.Schema".orders';

/** Reads a name's parts, separated by dots, from `at` on; ends at the text's end or at a character of `stops` outside quotes. Throws a usage error. */
export function readParts(text: string, at: number, stops: string): { parts: NamePart[]; end: number } {
  const parts: NamePart[] = [];
  let i = at;
  for (;;) {
    while (text[i] === ' ') i += 1;
    if (text[i] === '"') {
      let part = '';
      for (i += 1; ; i += 1) {
        if (text[i] === undefined) throw usageError(`not a table name: ${text.slice(at).trim()}`, `The double quote is not closed. ${hint}`);
        if (text[i] === '"') {
          if (text[i + 1] !== '"') break;
          i += 1;
        }
        part += text[i];
      }
      i += 1;
      parts.push({ text: part, quoted: true });
      while (text[i] === ' ') i += 1;
    } else {
      const begin = i;
      while (i < text.length && text[i] !== '.' && !stops.includes(text[i]!)) i += 1;
      parts.push({ text: text.slice(begin, i).trim(), quoted: false });
    }
    if (parts.at(-1)!.text === '') throw usageError(`not a table name: "${text.slice(at, i + 1).trim()}"`, hint);
    if (i < text.length && text[i] !== '.' && !stops.includes(text[i]!)) throw usageError(`not a table name: ${text.slice(at).trim()}`, hint);
    if (text[i] !== '.') return { parts, end: i };
    i += 1;
  }
}

/** `t`, `q.t` or `d.s.t`. Throws a usage error for more parts. */
export function tablePattern(parts: readonly NamePart[], written: string): TablePattern {
  const [a, b, c] = parts;
  if (parts.length === 1) return { name: a! };
  if (parts.length === 2) return { qualifier: a!, name: b! };
  if (parts.length === 3) return { database: a!, schema: b!, name: c! };
  throw usageError(`not a table name: ${written}`, hint);
}

/** A whole text as one table name. */
export function parseTablePattern(text: string): TablePattern {
  return tablePattern(readParts(text, 0, '').parts, text);
}

/** Names separated by commas (those outside quotes). An empty text is an empty list. */
export function splitList(text: string): string[] {
  const out: string[] = [];
  let at = 0;
  let quoted = false;
  for (let i = 0; i <= text.length; i += 1) {
    if (text[i] === '"') quoted = !quoted;
    if (i === text.length || (text[i] === ',' && !quoted)) {
      const item = text.slice(at, i).trim();
      if (item !== '') out.push(item);
      at = i + 1;
    }
  }
  return out;
}

/** Whether a part of a rule fits a name of the catalog. */
export function partMatches(part: NamePart, name: string): boolean {
  if (part.quoted || !part.text.includes('*')) return part.text === name;
  const pieces = part.text.split('*');
  let at = pieces[0]!.length;
  if (!name.startsWith(pieces[0]!)) return false;
  const last = pieces.at(-1)!;
  for (const piece of pieces.slice(1, -1)) {
    const found = name.indexOf(piece, at);
    if (found < 0) return false;
    at = found + piece.length;
  }
  return name.length - last.length >= at && name.endsWith(last);
}

/** As it would be written in a rule. */
export function patternText(pattern: TablePattern): string {
  return [pattern.database, pattern.schema, pattern.qualifier, pattern.name].flatMap((part) => (part ? [partText(part)] : [])).join('.');
}

export function partText(part: NamePart): string {
  return part.quoted ? `"${part.text.replaceAll('"', '""')}"` : part.text;
}

/** A table of the catalog as it would be written in a rule, in quotes where it must. */
export function writtenName(schema: string, name: string): string {
  return [schema, name].map((text) => partText({ text, quoted: /[.,:=*"\s]/.test(text) })).join('.');
}

/** A name of the catalog as a part that matches it and nothing else. */
export function exactly(text: string): NamePart {
  return { text, quoted: true };
}
