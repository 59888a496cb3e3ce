/**
 * What a message of the stream holds: a run of CopyData frames as the source sent them (frames.ts), and headers that tell where it stands. Transactions are gathered
 * into groups; a group is one message, or several (`part` 0, 1, …) where it is larger than a message may be, cut at any byte. Every group describes the tables
 * of its changes itself, so that a reader can begin at any of them.
 *
 *   Pgweave-Kind     start     nothing before it can be told: a new slot, or messages that the stream has lost
 *                    changes   a group of transactions, or a part of one
 *                    position  no frames: the source has written nothing for us up to `to`
 *   Pgweave-Log      system identifier, database and slot of the source: one stream, one log
 *   Pgweave-After    end of the newest transaction before this message: who has all up to here may begin with it
 *   Pgweave-Last     end of the newest transaction in this message and all before
 *   Pgweave-To       with this message everything that the source wrote before `to` is in the stream
 *   Pgweave-Part     number of the part, from 0, where the group has several
 *   Pgweave-More     there, where parts of the same group follow
 */
import { headers, type MsgHdrs } from '@nats-io/transport-node';
import { formatLsn, parseLsn, type Lsn } from '../../pg/lsn.ts';

export interface LogMessage {
  readonly kind: 'start' | 'changes' | 'position';
  readonly log: string;
  readonly after: Lsn;
  readonly last: Lsn;
  readonly to: Lsn;
  readonly part: number;
  readonly more: boolean;
}

export function encodeHeaders(message: LogMessage): MsgHdrs {
  const h = headers();
  h.set('Pgweave-Kind', message.kind);
  h.set('Pgweave-Log', message.log);
  h.set('Pgweave-After', formatLsn(message.after));
  h.set('Pgweave-Last', formatLsn(message.last));
  h.set('Pgweave-To', formatLsn(message.to));
  if (message.part > 0 || message.more) h.set('Pgweave-Part', String(message.part));
  if (message.more) h.set('Pgweave-More', '1');
  return h;
}

/** Undefined where the headers are not ours. */
export function decodeHeaders(h: MsgHdrs | undefined): LogMessage | undefined {
  const kind = h?.get('Pgweave-Kind');
  if (!h || (kind !== 'start' && kind !== 'changes' && kind !== 'position')) return undefined;
  const lsn = (name: string) => parseLsn(h.get(name));
  const part = Number(h.get('Pgweave-Part') || '0');
  try {
    return { kind, log: h.get('Pgweave-Log'), after: lsn('Pgweave-After'), last: lsn('Pgweave-Last'), to: lsn('Pgweave-To'), part, more: h.get('Pgweave-More') === '1' };
  } catch {
    return undefined;
  }
}

/** What the header `Pgweave-Log` says. */
export function logName(systemId: string, database: string, slot: string): string {
  return `${systemId}/${encodeURIComponent(database)}/${slot}`;
}
