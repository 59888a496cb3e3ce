import { usageError } from '../core/errors.ts';

/** For options that take a port; 0 stands for any free one. Throws a usage error. */
export function parsePort(text: string): number {
  if (!/^\d{1,5}$/.test(text) || Number(text) > 65_535) throw usageError(`not a port: "${text}"`, 'A port is a number from 0 to 65535.');
  return Number(text);
}
