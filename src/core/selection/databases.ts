import { usageError } from '../errors.ts';
import { didYouMean } from '../nearest.ts';
import { partMatches, partText } from './names.ts';
import type { SelectionRules } from './rules.ts';

export interface SelectableDatabase {
  readonly name: string;
  readonly isTemplate: boolean;
  readonly allowsConnections: boolean;
}

/** Databases that a server or its provider keeps for itself: RDS, Azure, Cloud SQL, AlloyDB, DigitalOcean and Aiven, EDB; `postgres` is where tools connect first. */
const maintenance = new Set(['postgres', 'rdsadmin', 'azure_maintenance', 'azure_sys', 'cloudsqladmin', 'alloydbadmin', 'alloydbmetadata', '_dodb', '_aiven', 'edb']);

/** Whether the rules speak of more than the one database of the source's URI. */
export function selectsDatabases(rules: SelectionRules): boolean {
  return rules.allDatabases || rules.includeDatabases.length > 0 || rules.excludeDatabases.length > 0;
}

/**
 * The databases of a job, by name, sorted. Without a rule about databases: the one connected to. Templates and databases that take no connections are left out,
 * those kept for maintenance too unless they are named. Throws a usage error for a name that is not there.
 */
export function selectDatabases(rules: SelectionRules, databases: readonly SelectableDatabase[], connected: string): string[] {
  if (!selectsDatabases(rules)) return [connected];
  const names = databases.map((d) => d.name);
  refuseUnknown(rules, names);
  const out = databases.filter((d) => {
    if (rules.excludeDatabases.some((part) => partMatches(part, d.name))) return false;
    const named = rules.includeDatabases.filter((part) => partMatches(part, d.name));
    if (named.some((part) => part.quoted || !part.text.includes('*'))) {
      if (!d.allowsConnections) throw usageError(`database "${d.name}" takes no connections`, `On the source: ALTER DATABASE "${d.name}" ALLOW_CONNECTIONS true; or leave it out.`);
      return true;
    }
    return (named.length > 0 || rules.includeDatabases.length === 0) && !d.isTemplate && d.allowsConnections && !maintenance.has(d.name);
  });
  if (out.length === 0) throw usageError('the rules leave out every database', `There are: ${names.join(', ')}. Maintenance databases such as "postgres" are taken only when --include-databases names them.`);
  return out.map((d) => d.name).sort();
}

/** Of the databases that a job is about already, those that the rules choose. Throws a usage error for a name that is none of them. */
export function databasesOfJob(rules: SelectionRules, names: readonly string[]): string[] {
  refuseUnknown(rules, names);
  const any = (parts: SelectionRules['includeDatabases'], name: string) => parts.some((part) => partMatches(part, name));
  return names.filter((name) => !any(rules.excludeDatabases, name) && (rules.includeDatabases.length === 0 || any(rules.includeDatabases, name)));
}

function refuseUnknown(rules: SelectionRules, names: readonly string[]): void {
  for (const [flag, parts] of [['--include-databases', rules.includeDatabases], ['--exclude-databases', rules.excludeDatabases]] as const) {
    for (const part of parts) {
      if (!names.some((name) => partMatches(part, name))) throw usageError(`${flag} names ${partText(part)}, and there is no such database`, didYouMean(part.text, names) || `There are: ${names.join(', ')}.`);
    }
  }
}
