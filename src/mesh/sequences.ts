import type { Session } from '../pg/session.ts';
import { meshTables } from './members.ts';

/** Sequences of one mesh draw numbers in steps of this, so that 511 nodes never meet. */
export const sequenceStep = 512;

/** A sequence that a key draws from. */
export interface KeySequence {
  /** Quoted, qualified. */
  readonly name: string;
  readonly increment: bigint;
  /** How many numbers each node could still draw if they went in steps. */
  readonly room: bigint;
}

/** The sequence of a column, if it draws from one of its own (serial, identity). */
export async function sequenceOf(session: Session, table: string, column: string): Promise<KeySequence | undefined> {
  const [row] = await session.query<{ name: string; increment: bigint; room: bigint }>(`select s.seqrelid::regclass::text as name, s.seqincrement as increment, (s.seqmax - coalesce(pg_catalog.pg_sequence_last_value(s.seqrelid::regclass), 0)) / ${sequenceStep} as room
    from pg_catalog.pg_sequence s where s.seqrelid = pg_catalog.pg_get_serial_sequence($1, $2)::regclass`, [table, column]);
  return row;
}

/** Lets a node draw the numbers that leave its own number over when divided by the step, above all that were drawn. */
export async function interleave(session: Session, sequence: string, id: number): Promise<void> {
  const { last } = await session.one<{ last: bigint }>(`select coalesce(pg_catalog.pg_sequence_last_value($1::regclass), 0) as last`, [sequence]);
  const next = (last / BigInt(sequenceStep) + 1n) * BigInt(sequenceStep) + BigInt(id);
  await session.query(`alter sequence ${sequence} increment by ${sequenceStep} restart with ${next}`);
}

/** Gives a node that joins numbers of its own wherever keys are drawn in steps on a member: a clone would go on with the numbers of its donor. */
export async function interleaveKeys(session: Session, member: Session, id: number): Promise<void> {
  for (const table of await meshTables(member)) {
    for (const key of table.keys) {
      const theirs = await sequenceOf(member, table.rel, key);
      const own = theirs?.increment === BigInt(sequenceStep) ? await sequenceOf(session, table.rel, key) : undefined;
      if (own) await interleave(session, own.name, id);
    }
  }
}
