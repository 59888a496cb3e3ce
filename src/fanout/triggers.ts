import { ensurePgweaveTables } from '../catalog/pgweave-schema.ts';
import type { TableRef } from '../core/tables.ts';
import { qualifiedName, quoteIdent } from '../pg/identifiers.ts';
import type { Session } from '../pg/session.ts';

const statements: readonly string[] = [
  `create table if not exists pgweave.fanout_trigger (
     job text not null, schema_name text not null, table_name text not null, trigger_name text not null, enabled text not null, primary key (job, schema_name, table_name, trigger_name))`,
];

/**
 * Turns off, for the time of the initial copy, the triggers that fire for replicated rows too (ENABLE ALWAYS and ENABLE REPLICA); all others are silent in apply workers by
 * themselves. What they were is written down on the target in the same transaction, so that whoever comes after a crash can restore it.
 */
export async function silenceTriggers(target: Session, job: string, tables: readonly TableRef[]): Promise<number> {
  const found = await target.query<{ schema: string; name: string; trigger: string; enabled: string }>(
    `select n.nspname as schema, c.relname as name, t.tgname as trigger, t.tgenabled::text as enabled
       from rows from (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) as w(s, t)
       join pg_catalog.pg_namespace n on n.nspname = w.s join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = w.t join pg_catalog.pg_trigger t on t.tgrelid = c.oid
      where not t.tgisinternal and t.tgenabled in ('A', 'R')`, [tables.map((t) => t.schema), tables.map((t) => t.name)],
  );
  if (found.length === 0) return 0;
  await ensurePgweaveTables(target, 'fanout', 1, statements);
  await target.transaction(async () => {
    for (const t of found) {
      await target.query('insert into pgweave.fanout_trigger values ($1, $2, $3, $4, $5) on conflict do nothing', [job, t.schema, t.name, t.trigger, t.enabled]);
      await target.query(`alter table ${qualifiedName(t.schema, t.name)} disable trigger ${quoteIdent(t.trigger)}`);
    }
  });
  return found.length;
}

/** Turns them on again as they were, once the copy is through. */
export async function restoreTriggers(target: Session, job: string): Promise<void> {
  const { there } = await target.one<{ there: boolean }>(`select pg_catalog.to_regclass('pgweave.fanout_trigger') is not null as there`);
  if (!there) return;
  await target.transaction(async () => {
    const rows = await target.query<{ schema_name: string; table_name: string; trigger_name: string; enabled: string }>('delete from pgweave.fanout_trigger where job = $1 returning schema_name, table_name, trigger_name, enabled', [job]);
    for (const row of rows) await target.query(`alter table ${qualifiedName(row.schema_name, row.table_name)} enable ${row.enabled === 'A' ? 'always' : 'replica'} trigger ${quoteIdent(row.trigger_name)}`);
  });
}
