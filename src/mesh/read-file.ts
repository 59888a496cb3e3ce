import { readFileSync } from 'node:fs';
import { extname } from 'node:path';
import { parse as parseYaml, YAMLParseError } from 'yaml';
import type { z } from 'zod';
import { errorMessage, PgweaveError, usageError } from '../core/errors.ts';

/** One thing that is wrong in an input file, and where. */
export interface InputFault {
  /** Such as `users.constraints.primary[0]`; empty for the whole file. */
  readonly path: string;
  readonly message: string;
}

/** Several faults of one input at once: exit code 2. `details.faults` holds them. */
export function inputError(source: string, faults: readonly InputFault[], hint?: string): PgweaveError {
  const lines = faults.map((f) => `${f.path === '' ? '' : `${f.path}: `}${f.message}`);
  return new PgweaveError('mesh-input', faults.length === 1 ? `${source}: ${lines[0]}` : `${source}: ${faults.length} faults\n${lines.map((l) => `  ${l}`).join('\n')}`, {
    retry: 'never', exitCode: 2, details: { source, faults }, ...(hint === undefined ? {} : { hint }),
  });
}

/** Reads a JSON or YAML file (by its extension). Throws a usage error that names the file and, where the parser knows it, the line. */
export function readInputFile(path: string): unknown {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    throw usageError(code === 'ENOENT' ? `there is no file ${path}` : `cannot read ${path}: ${errorMessage(error)}`, 'Name another file with --nodes or --tables; examples/mesh has both.');
  }
  const yaml = ['.yaml', '.yml'].includes(extname(path).toLowerCase());
  try {
    // YAML 1.2 is a superset of JSON, but JSON.parse is stricter and what editors check against.
    return yaml ? parseYaml(text, { uniqueKeys: true }) : JSON.parse(text);
  } catch (error) {
    const where = error instanceof YAMLParseError && error.linePos ? `, line ${error.linePos[0].line}` : '';
    throw usageError(`${path}${where} is not ${yaml ? 'YAML' : 'JSON'}: ${errorMessage(error)}`);
  }
}

/** `["users","constraints","primary",0]` → `users.constraints.primary[0]`. */
export function formatPath(path: readonly PropertyKey[]): string {
  return path.map((part, i) => (typeof part === 'number' ? `[${part}]` : /^[A-Za-z_][\w$]*$/.test(String(part)) ? `${i === 0 ? '' : '.'}${String(part)}` : `[${JSON.stringify(String(part))}]`)).join('');
}

export function faultsOf(error: z.ZodError): InputFault[] {
  return error.issues.map((issue) => ({ path: formatPath(issue.path), message: issue.message }));
}
