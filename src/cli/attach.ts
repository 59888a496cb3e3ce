import type { Command } from 'commander';
import type { JobFolder } from '../core/job-folder.ts';
import { isRunning, readStateFile } from '../core/state-file.ts';
import { FolderControl } from '../server/folder-control.ts';
import type { JobControl } from '../server/job-control.ts';
import { RemoteControl } from '../server/remote-control.ts';

export interface AttachFlags {
  readonly connect?: string;
  readonly connectToken?: string;
}

/** Adds --connect and --connect-token. */
export function addAttachOptions(command: Command): Command {
  return command
    .option('--connect <url>', 'the API of a running job, such as http://127.0.0.1:7654 (default: found in the job\'s state folder)')
    .option('--connect-token <token>', 'token of that API; better given as PGWEAVE_API_TOKEN');
}

export type Attached = JobControl & (AsyncDisposable | Disposable);

/**
 * A job in another process: over its API where that is named or where its state folder tells of one that runs, else as its state folder shows it, which can be watched but not steered.
 * Throws what RemoteControl.connect and FolderControl.open throw.
 */
export async function attach(folder: JobFolder, flags: AttachFlags, env: NodeJS.ProcessEnv = process.env): Promise<Attached> {
  const token = flags.connectToken ?? env['PGWEAVE_API_TOKEN'];
  if (flags.connect !== undefined) return await RemoteControl.connect({ url: flags.connect, token });
  const snapshot = await readStateFile(folder.path);
  if (snapshot?.api !== undefined && isRunning(snapshot)) return await RemoteControl.connect({ url: snapshot.api, token });
  return await FolderControl.open(folder.path, folder.job);
}

/** Ends what {@link attach} opened. */
export async function detach(control: Attached): Promise<void> {
  if (Symbol.asyncDispose in control) await control[Symbol.asyncDispose]();
  else control[Symbol.dispose]();
}
