import { checkJobName, fingerprint } from '../job-folder.ts';

/** The name of the job that moves one database of several: `shop` for job `default`, else `<job>_shop`; other letters are replaced and a fingerprint keeps such names apart. At most 40 characters. */
export function databaseJob(job: string, database: string): string {
  const prefix = job === 'default' ? '' : `${job}_`;
  const plain = database.toLowerCase().replace(/[^a-z0-9_]/g, '_');
  const room = 40 - prefix.length;
  const name = plain === database && plain.length <= room && plain !== 'default' ? plain : `${plain.slice(0, Math.max(0, room - 7))}_${fingerprint(database).slice(0, 6)}`;
  return checkJobName(`${prefix}${name}`);
}
