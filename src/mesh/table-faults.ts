import type { Session } from '../pg/session.ts';

/**
 * Triggers of users that a table in a mesh must not have: those that change rows after the mesh has stamped them, and those that change rows while
 * changes of other nodes arrive. Row triggers fire in the order of their names, byte by byte. Source: PostgreSQL documentation, "Overview of Trigger Behavior".
 */
export async function triggerFaults(session: Session, table: string): Promise<string[]> {
  const rows = await session.query<{ name: string; late: boolean }>(`select t.tgname::text as name, t.tgenabled not in ('A', 'R') as late from pg_catalog.pg_trigger t where t.tgrelid = $1::regclass and not t.tgisinternal
    and t.tgname !~ '^zzz_mesh_' and t.tgtype & 3 = 3 and (t.tgenabled in ('A', 'R') or (t.tgenabled = 'O' and t.tgname::text collate "C" > 'zzz_mesh')) order by 1`, [table]);
  return rows.map((r) => (r.late ? `trigger ${r.name} fires after the mesh's own: what it changes in a row would be stamped wrongly; give it a name that sorts before zzz_mesh` : `trigger ${r.name} fires before rows of other nodes are written too (ENABLE ALWAYS or REPLICA): it could make nodes differ`));
}

/** Row and statement triggers that every table in a mesh has. Source: sql/table-capture.ts. */
const captureTriggers = ['born', 'stamp', 'rekey', 'rekeyed', 'inserted', 'updated', 'deleted', 'emptied'].map((n) => `zzz_mesh_${n}`);

/** What someone has changed about a table in the mesh since it came in, so that nodes may come apart. `sent`: columns whose values travel. */
export async function tableFaults(session: Session, table: { readonly rel: string; readonly base: string; readonly sent: readonly string[] }): Promise<string[]> {
  const faults = await triggerFaults(session, table.rel);
  const columns = await session.query<{ name: string; generated: boolean }>(`select a.attname::text as name, a.attgenerated <> '' as generated from pg_catalog.pg_attribute a where a.attrelid = $1::regclass and a.attnum > 0 and not a.attisdropped order by a.attnum`, [table.rel]);
  // The time of a row's last write follows from its stamp, in tables that the mesh has made.
  const derived = new Set(['_mesh_w', '_mesh_m', ...(table.sent.includes('origin_node') ? ['updated_at'] : [])]);
  const strange = columns.filter((c) => !c.generated && !derived.has(c.name) && !table.sent.includes(c.name)).map((c) => c.name);
  if (strange.length > 0) faults.push(`${strange.length === 1 ? 'column' : 'columns'} ${strange.join(', ')} ${strange.length === 1 ? 'was added since and does not travel' : 'were added since and do not travel'}`);
  const gone = table.sent.filter((name) => !columns.some((c) => c.name === name));
  if (gone.length > 0) faults.push(`${gone.length === 1 ? 'column' : 'columns'} ${gone.join(', ')} ${gone.length === 1 ? 'is' : 'are'} gone: writes and changes of other nodes fail`);
  const triggers = await session.query<{ name: string; enabled: string }>(`select t.tgname::text as name, t.tgenabled::text as enabled from pg_catalog.pg_trigger t where (t.tgrelid = $1::regclass and t.tgname ~ '^zzz_mesh_') or (t.tgrelid = '_mesh.journal'::regclass and t.tgname = $2)`, [table.rel, `apply_${table.base}`]);
  const wanted = [...captureTriggers.map((name) => [name, 'O'] as const), [`apply_${table.base}`, 'R'] as const];
  const off = wanted.filter(([name, enabled]) => triggers.find((t) => t.name === name)?.enabled !== enabled).map(([name]) => name);
  if (off.length > 0) faults.push(`the mesh's ${off.length === 1 ? 'trigger' : 'triggers'} ${off.join(', ')} ${off.length === 1 ? 'is' : 'are'} off or gone: writes go past the mesh`);
  return faults;
}
