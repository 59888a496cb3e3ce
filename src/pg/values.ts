/**
 * Parsers for what catalog queries return: bool, int2, int4, oid as JavaScript values, int8 as bigint, json parsed, arrays of text-like
 * and integer types as arrays. Everything else stays the text that the server sent. Rows of users' tables never pass here.
 */
const number = (text: string) => Number(text);

/** Parses a one-dimensional array in PostgreSQL's text form; elements stay text, NULL becomes null. Source: documentation, "Array Input and Output Syntax". */
export function parseTextArray(text: string): (string | null)[] {
  const out: (string | null)[] = [];
  // A lower bound other than one is written before the braces: [0:1]={…}.
  let at = text.indexOf('{') + 1;
  if (text[at] === '}') return out;
  for (;;) {
    let value = '';
    if (text[at] === '"') {
      for (at += 1; text[at] !== '"'; at += 1) {
        if (text[at] === undefined) throw new RangeError('array text ends inside a quoted element');
        if (text[at] === '\\') at += 1;
        value += text[at];
      }
      at += 1;
      out.push(value);
    } else {
      while (at < text.length && text[at] !== ',' && text[at] !== '}') {
        if (text[at] === '\\') at += 1;
        value += text[at];
        at += 1;
      }
      out.push(value === 'NULL' ? null : value);
    }
    if (text[at] !== ',') return out;
    at += 1;
  }
}

const intArray = (text: string) => parseTextArray(text).map(Number);
const parsers = new Map<number, (text: string) => unknown>([
  [16, (t) => t === 't'], [20, (t) => BigInt(t)], [21, number], [23, number], [26, number], [114, (t) => JSON.parse(t) as unknown], [3802, (t) => JSON.parse(t) as unknown],
  [1009, parseTextArray], [1003, parseTextArray], [1002, parseTextArray], [1015, parseTextArray], [1005, intArray], [1007, intArray], [1028, intArray], [22, (t) => (t === '' ? [] : t.split(' ').map(Number))],
]);
const asText = (text: string) => text;

/** node-postgres asks this for each column. */
export const catalogTypes = {
  getTypeParser: (oid: number): ((text: string) => unknown) => parsers.get(oid) ?? asText,
};
