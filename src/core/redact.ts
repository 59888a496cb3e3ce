const known = new Set<string>();

/**
 * Remembers a secret so that {@link redact} removes it from any text. Connection parsing calls this for each password it meets.
 * Secrets of fewer than four characters are not remembered: replacing them would garble every text without hiding anything.
 */
export function rememberSecret(secret: string | undefined): void {
  if (secret === undefined || secret.length < 4) return;
  known.add(secret);
  const encoded = encodeURIComponent(secret);
  if (encoded !== secret) known.add(encoded);
}

/** Removes passwords from a text: those of URIs and conninfo strings, and every secret that was remembered. */
export function redact(text: string): string {
  let out = text
    .replace(/(\b[a-z][a-z0-9+]*:\/\/[^\s:/?#@]*):[^\s/@]*@/gi, '$1:***@')
    .replace(/(\b(?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&'"]+)/gi, '$1***');
  for (const secret of known) if (out.includes(secret)) out = out.replaceAll(secret, '***');
  return out;
}

const secretKey = /pass(word|wd|phrase)?$|secret|token|^authorization$/i;
const deepest = 6;

/** A copy of any value without secrets, fit for JSON: texts are redacted, fields with a secret's name are blanked, errors become their code, message, hint and details. */
export function redactDeep(value: unknown, depth = 0): unknown {
  if (typeof value === 'string') return redact(value);
  if (typeof value === 'bigint') return value.toString();
  if (typeof value !== 'object' || value === null) return value;
  if (depth >= deepest) return '…';
  if (value instanceof Error) {
    const own = Object.fromEntries(Object.entries(value).filter(([key]) => key !== 'cause'));
    return redactDeep({ name: value.name, message: value.message, ...own, ...(value.cause === undefined ? {} : { cause: value.cause }) }, depth + 1);
  }
  if (value instanceof Date) return value.toISOString();
  if (ArrayBuffer.isView(value)) return `${value.byteLength} bytes`;
  if (Array.isArray(value)) return value.map((item) => redactDeep(item, depth + 1));
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, secretKey.test(key) && item !== undefined ? '***' : redactDeep(item, depth + 1)]));
}
