import { availableExtensions, installedExtensions, type AvailableExtensionRow, type ExtensionRow } from '../catalog/extensions.ts';
import { quoteIdent } from '../pg/identifiers.ts';
import { advice, check, counted, sqlFix, type Check, type CheckItem } from './check.ts';
import { majorOf, type CheckedServer } from './context.ts';
import { extensionFix } from './provider-fixes.ts';
import { isAdmin } from './rights.ts';

/** These keep their data in ways that a copy table by table does not carry over. */
const ownStorage: Readonly<Record<string, string>> = {
  timescaledb: 'its hypertables are spread over chunks that it creates itself: use its own tools, or turn them into plain tables',
  citus: 'its tables are spread over other servers: use its own tools',
  pg_partman: 'new partitions are made by its own job: stop it while the migration runs',
};

/** Extensions of the source: there on the target, in which version, and may the role create them [13]? */
export async function extensionChecks(source: CheckedServer, target: CheckedServer): Promise<Check[]> {
  const used = await source.session.query<ExtensionRow>(installedExtensions());
  if (used.length === 0) return [check('extensions', 'both', 'ok', 'the source uses no extensions', { facts: { used: [] } })];
  const there = new Map((await target.session.query<AvailableExtensionRow>(availableExtensions(used.map((e) => e.name)))).map((e) => [e.name, e]));
  const missing: CheckItem[] = [];
  const forbidden: CheckItem[] = [];
  const versions: CheckItem[] = [];
  const storage: CheckItem[] = [];
  for (const e of used) {
    const found = there.get(e.name);
    if (!found) missing.push({ subject: e.name, note: `version ${e.version} here, not to be had there`, fix: extensionFix('target', target.provider, e.name, majorOf(target)) });
    else {
      if (found.installed_version === null && found.needs_superuser && !isAdmin(target)) forbidden.push({ subject: e.name, note: 'only a superuser may create it', fix: sqlFix('target', `create extension ${quoteIdent(e.name)};   -- as a superuser, before the clone`) });
      const version = found.installed_version ?? found.default_version;
      if (version !== e.version) versions.push({ subject: e.name, note: `${e.version} here, ${version} there${found.installed_version === null ? '' : ' (installed already)'}${found.versions.includes(e.version) ? `; ${e.version} is there too` : ''}` });
    }
    if (ownStorage[e.name]) storage.push({ subject: e.name, note: ownStorage[e.name]! });
  }
  const facts = { used: used.map((e) => ({ name: e.name, version: e.version, schema: e.schema, target: there.get(e.name)?.installed_version ?? there.get(e.name)?.default_version ?? null })) };
  const checks: Check[] = [];
  if (missing.length > 0) checks.push(check('extensions', 'both', 'fail', `${counted(missing.length, 'extension')} of the source cannot be had on the target`, { facts, items: missing }));
  else checks.push(check('extensions', 'both', 'ok', `${counted(used.length, 'extension')} of the source can be had on the target`, { facts, items: used.map((e) => ({ subject: e.name, note: e.version })) }));
  if (forbidden.length > 0) checks.push(check('extension-rights', 'target', 'fail', `role ${target.rights.role} may not create ${counted(forbidden.length, 'extension')}`, { facts: { extensions: forbidden.map((f) => f.subject) }, items: forbidden }));
  if (versions.length > 0) checks.push(check('extension-versions', 'both', 'warn', `${counted(versions.length, 'extension')} will have another version on the target`, { facts: { extensions: versions.map((v) => v.subject) }, items: versions }));
  if (storage.length > 0) checks.push(check('extension-storage', 'source', 'warn', `${counted(storage.length, 'extension')} of the source keep data in ways of their own`, { facts: { extensions: storage.map((s) => s.subject) }, items: storage, fix: advice('source', 'look into the extension\'s manual on migration') }));
  return checks;
}
