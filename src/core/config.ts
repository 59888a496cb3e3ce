import { readFileSync } from 'node:fs';
import { extname } from 'node:path';
import { parse as parseToml, TomlError } from 'smol-toml';
import { LineCounter, parseDocument, type Document } from 'yaml';
import { z } from 'zod';
import { usageError } from './errors.ts';
import { didYouMean } from './nearest.ts';

export type ConfigPath = readonly PropertyKey[];

/** A configuration file after its format was parsed and before its meaning was checked. */
export interface ConfigDocument {
  /** As it was given: for messages. */
  readonly path: string;
  readonly value: unknown;
  /** The line, from 1, on which a key or list element stands; undefined where it cannot be told. */
  lineOf(path: ConfigPath): number | undefined;
}

/**
 * Reads a YAML, TOML or JSON file; the extension says which. Throws a usage error that names file and line for anything that is not
 * of that format, an unknown extension, or a file that cannot be read.
 */
export function readConfig(path: string): ConfigDocument {
  const extension = extname(path).toLowerCase();
  if (!['.yaml', '.yml', '.toml', '.json'].includes(extension)) throw usageError(`cannot tell the format of ${path} by its name`, 'Name the file .yaml, .yml, .toml or .json.');
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw usageError(code === 'ENOENT' ? `no such file: ${path}` : `cannot read ${path}: ${code ?? 'unknown error'}`, 'Check the path given with --config.');
  }
  return parseConfig(text, path, extension.slice(1) as 'yaml' | 'yml' | 'toml' | 'json');
}

/** {@link readConfig} for a text that is already here. */
export function parseConfig(text: string, path: string, format: 'yaml' | 'yml' | 'toml' | 'json'): ConfigDocument {
  if (format === 'toml') {
    try {
      return { path, value: parseToml(text), lineOf: (keys) => tomlLine(text, keys) };
    } catch (error) {
      if (!(error instanceof TomlError)) throw error;
      throw usageError(`${path}, line ${error.line}: not valid TOML: ${error.message.split('\n')[0]!.replace(/^Invalid TOML document: /, '')}`);
    }
  }
  const lines = new LineCounter();
  // JSON is read as YAML too, only to know the lines.
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true, strict: true });
  if (format === 'json') {
    try {
      return { path, value: JSON.parse(text) as unknown, lineOf: (keys) => yamlLine(document, lines, keys) };
    } catch (error) {
      const at = /position (\d+)/.exec((error as Error).message);
      const line = at ? text.slice(0, Number(at[1])).split('\n').length : undefined;
      throw usageError(`${path}${line === undefined ? '' : `, line ${line}`}: not valid JSON: ${(error as Error).message.replace(/ in JSON at position.*/, '')}`);
    }
  }
  const fault = document.errors[0];
  if (fault) throw usageError(`${path}, line ${lines.linePos(fault.pos[0]).line}: not valid YAML: ${fault.message}`);
  return { path, value: document.toJS() as unknown, lineOf: (keys) => yamlLine(document, lines, keys) };
}

function yamlLine(document: Document, lines: LineCounter, path: ConfigPath): number | undefined {
  const keys = path.map((key) => (typeof key === 'symbol' ? String(key) : key));
  for (let length = keys.length; length > 0; length -= 1) {
    const last = keys[length - 1];
    const parent = length === 1 ? document.contents : (document.getIn(keys.slice(0, length - 1), true) as unknown);
    const items = (parent as { items?: unknown[] } | undefined)?.items;
    if (!Array.isArray(items)) continue;
    for (const [i, item] of items.entries()) {
      const key = (item as { key?: { value?: unknown; range?: number[] } }).key;
      const range = key ? (String(key.value) === String(last) ? key.range : undefined) : i === Number(last) ? (item as { range?: number[] }).range : undefined;
      if (range) return lines.linePos(range[0]!).line;
    }
  }
  return undefined;
}

/** smol-toml keeps no positions: the last key's name is looked for in the text, and counts only where it stands once at a key's place. */
function tomlLine(text: string, path: ConfigPath): number | undefined {
  const key = path.filter((part) => typeof part === 'string').at(-1);
  if (typeof key !== 'string') return undefined;
  const quoted = key.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  const name = `(?:"${quoted}"|'${quoted}'|${quoted})`;
  const place = new RegExp(`(?:^\\s*(?:[\\w"'-]+\\s*\\.\\s*)*${name}\\s*(?:\\.[^=]*)?=)|(?:^\\s*\\[.*(?:\\[|\\.|\\s)${name}\\s*(?:\\.|\\]))|(?:[{,]\\s*${name}\\s*=)`);
  const found = text.split('\n').flatMap((line, i) => (place.test(line) ? [i + 1] : []));
  return found.length === 1 ? found[0] : undefined;
}

/**
 * Checks a file's meaning. Throws one usage error that lists every fault with its line (where the format tells) and path; a key that the
 * schema does not know (use `z.strictObject`) is met with the nearest one that it knows.
 */
export function checkConfig<Schema extends z.ZodType>(document: ConfigDocument, schema: Schema): z.output<Schema> {
  const result = schema.safeParse(document.value ?? {});
  if (result.success) return result.data;
  const faults = misspeltFirst(result.error.issues).flatMap((issue) => describeIssue(document, schema, issue));
  const [first, ...rest] = faults;
  throw usageError(`${document.path}: ${first!.text}${rest.map((fault) => `\n  ${fault.text}`).join('')}`, [...new Set(faults.flatMap((fault) => fault.hint))].join(' ') || undefined);
}

/** What is spelt wrong is told before what is therefore missing. */
function misspeltFirst(issues: readonly z.core.$ZodIssue[]): z.core.$ZodIssue[] {
  return [...issues].sort((a, b) => Number(b.code === 'unrecognized_keys') - Number(a.code === 'unrecognized_keys'));
}

interface Fault {
  readonly text: string;
  readonly hint: readonly string[];
}

function describeIssue(document: ConfigDocument, schema: z.ZodType, issue: z.core.$ZodIssue): Fault[] {
  const place = (path: ConfigPath) => {
    const line = document.lineOf(path);
    return line === undefined ? '' : `line ${line}: `;
  };
  if (issue.code === 'unrecognized_keys') {
    const known = knownKeys(schema, issue.path);
    return issue.keys.map((key) => {
      const near = didYouMean(key, known);
      const inside = issue.path.length === 0 ? '' : ` in ${pathText(issue.path)}`;
      return { text: `${place([...issue.path, key])}unknown key "${key}"${inside}`, hint: [near === '' ? `Known here: ${[...known].sort().join(', ')}.` : near] };
    });
  }
  if (issue.code === 'invalid_union') {
    const inner = misspeltFirst(issue.errors.flat()).filter((x) => x.path.length > 0 || x.code === 'unrecognized_keys');
    // Of the alternatives that fit the value's shape, the first one's complaints say more than "invalid input".
    if (inner.length > 0) return inner.slice(0, 1).flatMap((x) => describeIssue(document, schema, { ...x, path: [...issue.path, ...x.path] } as z.core.$ZodIssue));
  }
  return [{ text: `${place(issue.path)}${pathText(issue.path)}${issue.path.length > 0 ? ': ' : ''}${issueText(issue)}`, hint: [] }];
}

/** zod's own words, without its names for things. */
function issueText(issue: z.core.$ZodIssue): string {
  if (issue.code === 'invalid_union') {
    const expected = issue.errors.flat().flatMap((x) => (x.code === 'invalid_type' ? [x.expected] : []));
    if (expected.length > 0) return `expected ${[...new Set(expected)].join(' or ').replace(/\brecord\b/, 'object')}`;
  }
  return issue.message.replace(/^Invalid input: /, '').replace(/^expected record/, 'expected object');
}

/** `databases.shop.time_filters[1].last`: elements of lists count from 1, as people do. */
export function pathText(path: ConfigPath): string {
  return path.map((part, i) => (typeof part === 'number' ? `[${part + 1}]` : `${i > 0 ? '.' : ''}${String(part)}`)).join('');
}

/** The keys of the object that stands at a path of a schema; of all alternatives where there are several. */
function knownKeys(schema: z.ZodType, path: ConfigPath): Set<string> {
  let here: z.ZodType[] = unwrap(schema);
  for (const part of path) {
    here = here.flatMap((s) => {
      if (s instanceof z.ZodObject) {
        const next = (s.shape as Record<string, z.ZodType | undefined>)[String(part)];
        return next ? unwrap(next) : [];
      }
      if (s instanceof z.ZodRecord) return unwrap(s.def.valueType as z.ZodType);
      if (s instanceof z.ZodArray) return unwrap(s.def.element as z.ZodType);
      return [];
    });
  }
  return new Set(here.flatMap((s) => (s instanceof z.ZodObject ? Object.keys(s.shape as object) : [])));
}

function unwrap(schema: z.ZodType): z.ZodType[] {
  if (schema instanceof z.ZodUnion) return schema.def.options.flatMap((option) => unwrap(option as z.ZodType));
  if (schema instanceof z.ZodPipe) return unwrap(schema.def.in as z.ZodType);
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodDefault || schema instanceof z.ZodNullable || schema instanceof z.ZodPrefault) return unwrap(schema.def.innerType as z.ZodType);
  return [schema];
}
