import { Command } from 'commander';
import { packageVersion } from '../core/package-version.ts';
import { cleanupCommand } from './cleanup.ts';
import { cloneCommand } from './clone.ts';
import { compareCommand } from './compare.ts';
import { demoCommand } from './demo.ts';
import { fanoutCommand } from './fanout.ts';
import { followCommand } from './follow.ts';
import { meshCommand } from './mesh.ts';
import { serveCommand } from './serve.ts';
import { statusCommand } from './status.ts';
import { switchoverCommand } from './switchover.ts';
import { syncCommand } from './sync.ts';
import { tableCommandLine } from './table.ts';
import { tuiCommand } from './tui.ts';
import { validateCommand } from './validate.ts';
import { verifyCommand } from './verify.ts';

/** The whole command line. Commands load their workflows only when they run, so that `--help` stays quick. */
export function program(): Command {
  const root = new Command('pgweave')
    .description('Moves, fans out and meshes PostgreSQL databases with logical replication.')
    .version(packageVersion(), '-V, --version')
    .addHelpText('after', '\nExample:\n  pgweave validate --source postgresql://app@old/shop --target postgresql://app@new/shop\n\nExit codes: 0 done; 1 failed; 2 wrong usage or configuration; 3 a check said no; 130 interrupted, state kept.');
  root.addCommand(validateCommand());
  root.addCommand(cloneCommand());
  root.addCommand(followCommand());
  root.addCommand(syncCommand());
  root.addCommand(statusCommand());
  root.addCommand(verifyCommand());
  root.addCommand(compareCommand());
  root.addCommand(switchoverCommand());
  root.addCommand(tableCommandLine());
  root.addCommand(cleanupCommand());
  root.addCommand(serveCommand());
  root.addCommand(tuiCommand());
  root.addCommand(fanoutCommand());
  root.addCommand(meshCommand());
  root.addCommand(demoCommand());
  return root;
}
