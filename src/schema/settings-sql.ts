import { quoteIdent, quoteLiteral } from '../pg/identifiers.ts';
import { splitQualified } from './references.ts';

/**
 * Settings whose stored value is a list of quoted names. Written back as one literal they would become a list of one.
 * Source: src/bin/pg_dump/dumputils.c, variable_is_guc_list_quote.
 */
const quotedLists = new Set(['local_preload_libraries', 'search_path', 'session_preload_libraries', 'shared_preload_libraries', 'temp_tablespaces', 'unix_socket_directories']);

/** `"work_mem" to '7MB'` of a line `work_mem=7MB` in pg_db_role_setting.setconfig, for ALTER ROLE or ALTER DATABASE … SET. */
export function settingSql(line: string): string {
  const at = line.indexOf('=');
  const name = line.slice(0, at);
  const value = line.slice(at + 1);
  const names = name.split('.').map(quoteIdent).join('.');
  if (!quotedLists.has(name)) return `${names} to ${quoteLiteral(value).trim()}`;
  const items = splitList(value);
  return `${names} to ${items.length === 0 ? `''` : items.map((item) => quoteLiteral(item).trim()).join(', ')}`;
}

export function settingName(line: string): string {
  return line.slice(0, line.indexOf('='));
}

/** `"a, b", c` is [`a, b`, `c`]: commas outside of quotes separate. */
function splitList(text: string): string[] {
  const out: string[] = [];
  let part = '';
  let quoted = false;
  for (const c of `${text},`) {
    if (c === '"') quoted = !quoted;
    if (c === ',' && !quoted) {
      const [name] = splitQualified(part.trim());
      if (name !== undefined && name !== '') out.push(name);
      else if (part.trim() === '""') out.push('');
      part = '';
    } else part += c;
  }
  return out;
}
