#!/usr/bin/env node
import { runProgram } from './common.ts';
import { program } from './program.ts';

// A reader that goes away (`pgweave … | head`) is no fault of ours.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
});

await runProgram(program(), process.argv);
