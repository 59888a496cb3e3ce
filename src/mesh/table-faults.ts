import type { Session } from '../pg/session.ts';

interface TriggerRow {
  readonly name: string;
  readonly enabled: string;
  /** Whether it fires BEFORE, for each row: bits 1 and 2 of tgtype. Source: PostgreSQL's pg_trigger.h. */
  readonly before: boolean;
}

/** Triggers of the mesh itself. */
const own = /^zzz_mesh_/;

/**
 * Triggers of users that a table in a mesh must not have: those that change rows after the mesh has stamped them, and those that change rows while
 * changes of other nodes arrive. Row triggers fire in the order of their names, byte by byte. Source: PostgreSQL documentation, "Overview of Trigger Behavior".
 */
function strangeTriggers(triggers: readonly TriggerRow[]): string[] {
  return triggers.filter((t) => t.before && !own.test(t.name)).flatMap((t) => {
    if (t.enabled === 'A' || t.enabled === 'R') return [`trigger ${t.name} fires before rows of other nodes are written too (ENABLE ALWAYS or REPLICA): it could make nodes differ`];
    const late = t.enabled === 'O' && Buffer.compare(Buffer.from(t.name), Buffer.from('zzz_mesh')) > 0;
    return late ? [`trigger ${t.name} fires after the mesh's own: what it changes in a row would be stamped wrongly; give it a name that sorts before zzz_mesh`] : [];
  });
}

/** What keeps a table with its triggers out of a mesh. */
export async function triggerFaults(session: Session, table: string): Promise<string[]> {
  return strangeTriggers(await session.query<{ name: string; enabled: string; before: boolean }>('select t.tgname::text as name, t.tgenabled::text as enabled, t.tgtype & 3 = 3 as before from pg_catalog.pg_trigger t where t.tgrelid = $1::regclass and not t.tgisinternal order by 1', [table]));
}

/** Triggers that every table in a mesh has. Source: sql/table-capture.ts. */
const captureTriggers = ['born', 'stamp', 'rekey', 'rekeyed', 'inserted', 'updated', 'deleted', 'emptied'].map((n) => `zzz_mesh_${n}`);

/** What someone has changed about tables in the mesh since they came in, so that nodes may come apart: by name of the table. Three queries, however many tables. */
export async function tableFaults(session: Session): Promise<Map<string, string[]>> {
  const tables = await session.query<{ name: string; base: string; sent: string[]; columns: string[] | null }>(`select t.name, t.base, t.sent,
      (select pg_catalog.array_agg(a.attname::text order by a.attnum) from pg_catalog.pg_attribute a where a.attrelid = t.rel and a.attnum > 0 and not a.attisdropped and a.attgenerated = '') as columns from _mesh.tbl t`);
  const triggers = await session.query<TriggerRow & { table: string }>(`select t.name as table, g.tgname::text as name, g.tgenabled::text as enabled, g.tgtype & 3 = 3 as before from _mesh.tbl t join pg_catalog.pg_trigger g on g.tgrelid = t.rel where not g.tgisinternal order by 1, 2`);
  const applying = new Set((await session.query<{ name: string }>(`select tgname::text as name from pg_catalog.pg_trigger where tgrelid = '_mesh.journal'::regclass and tgenabled = 'R'`)).map((t) => t.name));
  return new Map(tables.map((table) => {
    const mine = triggers.filter((t) => t.table === table.name);
    const columns = table.columns ?? [];
    // The time of a row's last write follows from its stamp, in tables that the mesh has made.
    const derived = new Set(['_mesh_w', '_mesh_m', ...(table.sent.includes('origin_node') ? ['updated_at'] : [])]);
    const strange = columns.filter((c) => !derived.has(c) && !table.sent.includes(c));
    const gone = table.sent.filter((c) => !columns.includes(c));
    const off = [...captureTriggers.filter((name) => mine.find((t) => t.name === name)?.enabled !== 'O'), ...(applying.has(`apply_${table.base}`) ? [] : [`apply_${table.base}`])];
    return [table.name, [
      ...strangeTriggers(mine),
      ...(strange.length > 0 ? [strange.length === 1 ? `column ${strange[0]} was added since and does not travel` : `columns ${strange.join(', ')} were added since and do not travel`] : []),
      ...(gone.length > 0 ? [`${gone.length === 1 ? 'column' : 'columns'} ${gone.join(', ')} ${gone.length === 1 ? 'is' : 'are'} gone: writes and changes of other nodes fail`] : []),
      ...(off.length > 0 ? [`the mesh's ${off.length === 1 ? 'trigger' : 'triggers'} ${off.join(', ')} ${off.length === 1 ? 'is' : 'are'} off or gone: writes go past the mesh`] : []),
    ]] as const;
  }));
}
