/** A position in the write-ahead log: a byte offset of 64 bits. Text (`16/B374D848`) only at the edges. */
export type Lsn = bigint & { readonly __lsn: unique symbol };

export const zeroLsn = 0n as Lsn;

/** Parses PostgreSQL's text form `XXXXXXXX/XXXXXXXX`. Throws RangeError for anything else. Source: type pg_lsn. */
export function parseLsn(text: string): Lsn {
  const match = /^([0-9a-f]{1,8})\/([0-9a-f]{1,8})$/i.exec(text);
  if (!match) throw new RangeError(`not an LSN: "${text}"`);
  return ((BigInt(`0x${match[1]}`) << 32n) | BigInt(`0x${match[2]}`)) as Lsn;
}

export function formatLsn(lsn: Lsn): string {
  return `${(lsn >> 32n).toString(16).toUpperCase()}/${(lsn & 0xffffffffn).toString(16).toUpperCase()}`;
}

export function maxLsn(a: Lsn, b: Lsn): Lsn {
  return a > b ? a : b;
}

/** Bytes of WAL between two positions, never negative. */
export function lsnDistance(from: Lsn, to: Lsn): number {
  return to > from ? Number(to - from) : 0;
}
