import { Command } from 'commander';
import { once } from 'node:events';
import { addAttachOptions, attach, detach, type AttachFlags } from './attach.ts';
import { addCommonOptions, runAction, type CommonOptions } from './common.ts';

interface TuiCommandOptions extends CommonOptions, AttachFlags {}

/** `pgweave tui`: the terminal dashboard, attached to a job in another process. Leaving it leaves the job alone. */
export function tuiCommand(): Command {
  const command = new Command('tui')
    .summary('the terminal dashboard of a running job, or of what it left behind')
    .description('Shows the terminal dashboard of a job that runs elsewhere. Over its API it can be steered too; from the state folder alone it can be watched. Leaving the dashboard leaves the job alone.');
  addCommonOptions(addAttachOptions(command));
  command.addHelpText('after', '\nExample:\n  pgweave tui --job default\n  pgweave tui --connect http://127.0.0.1:7654');
  return command.action(async (options: TuiCommandOptions) => {
    await runAction(options, async ({ folder, signal }) => {
      const { startTui } = await import('../tui/start.ts');
      const control = await attach(folder, options);
      try {
        const leave = new AbortController();
        await using _tui = await startTui({ control, quitStopsJob: false, onQuit: () => leave.abort() });
        const left = AbortSignal.any([signal, leave.signal]);
        if (!left.aborted) await once(left, 'abort');
      } finally {
        await detach(control);
      }
    });
  });
}
