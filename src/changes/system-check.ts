import { PgweaveError } from '../core/errors.ts';
import type { Emit } from '../core/events.ts';
import { formatLsn, parseLsn, type Lsn } from '../pg/lsn.ts';
import type { ReplicationSession } from '../pg/replication-session.ts';

/** Remembers which system the source is and in which history, and looks at both on every connection [hard case 22]. */
export class SystemCheck {
  #systemId: string | undefined;
  #timeline: number | undefined;

  /** `systemId`: the one to expect from the first connection on. */
  constructor(systemId: string | undefined) {
    this.#systemId = systemId;
  }

  get systemId(): string | undefined {
    return this.#systemId;
  }

  /**
   * Throws `another-system` where the address leads elsewhere, `timeline-behind` where it leads to an older history. Returns the position at which a
   * standby took over since the last look, undefined where none did.
   */
  async look(replication: ReplicationSession, emit: Emit): Promise<Lsn | undefined> {
    const { systemId, timeline } = await replication.identifySystem();
    if (this.#systemId !== undefined && systemId !== this.#systemId) {
      throw new PgweaveError('another-system', `the source's address leads to another PostgreSQL cluster now (system identifier ${systemId}, was ${this.#systemId})`, {
        retry: 'never', hint: 'Correct --source. If the database was restored or upgraded into a new cluster, begin again with a new copy: pgweave cleanup, then pgweave clone --follow.',
      });
    }
    this.#systemId = systemId;
    const before = this.#timeline;
    if (before === undefined || before === timeline) {
      this.#timeline = timeline;
      return undefined;
    }
    if (timeline < before) {
      throw new PgweaveError('timeline-behind', `the source's address leads to a server on timeline ${timeline}, an old primary: it was on ${before} before`, {
        retry: 'backoff', hint: 'Point --source at the new primary. The old one must not take writes.',
      });
    }
    const content = await timelineHistory(replication, timeline);
    const switchLsn = switchPoint(content, before);
    if (switchLsn === undefined) {
      throw new PgweaveError('timeline-unknown', `the source is on timeline ${timeline}, whose history does not contain timeline ${before}`, { retry: 'never', hint: 'It does not continue what was followed. Begin again with a new copy.' });
    }
    this.#timeline = timeline;
    emit({ type: 'warning', code: 'source-failed-over', message: `the source was failed over at ${formatLsn(switchLsn)}: timeline ${before} became ${timeline}` });
    return switchLsn;
  }
}

async function timelineHistory(replication: ReplicationSession, timeline: number): Promise<string> {
  const { content } = await replication.session.one<{ content: string }>(`TIMELINE_HISTORY ${timeline}`);
  // Sent as text, in older versions with the type bytea.
  return content.startsWith('\\x') ? Buffer.from(content.slice(2), 'hex').toString('utf8') : content;
}

/** Where a timeline ended, from a history file: lines of timeline, position, reason. Source: documentation, "Timelines"; src/backend/access/transam/timeline.c. */
export function switchPoint(history: string, timeline: number): Lsn | undefined {
  for (const line of history.split('\n')) {
    const match = /^\s*(\d+)\s+([0-9A-Fa-f]+\/[0-9A-Fa-f]+)/.exec(line);
    if (match && Number(match[1]) === timeline) return parseLsn(match[2]!);
  }
  return undefined;
}
