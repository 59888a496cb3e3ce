import type { Command } from 'commander';
import { program } from '../src/cli/program.ts';

/** Every command by its full name, such as `mesh generate`, with its help text at a fixed width. */
export function helpTexts(): Map<string, string> {
  const out = new Map<string, string>();
  const visit = (command: Command, path: string) => {
    command.configureHelp({ helpWidth: 120 });
    out.set(path, command.helpInformation().trimEnd());
    for (const sub of command.commands) visit(sub, `${path} ${sub.name()}`);
  };
  for (const command of program().commands) visit(command, command.name());
  return out;
}

/** Replaces what stands between `<!-- help:NAME -->` and `<!-- /help -->` in a page by the help text of that command. Throws for a name that is no command. */
export function fillHelp(page: string, texts: ReadonlyMap<string, string>): string {
  return page.replace(/<!-- help:([a-z -]+) -->[\s\S]*?<!-- \/help -->/g, (_all, name: string) => {
    const text = texts.get(name);
    if (text === undefined) throw new Error(`no such command: ${name}`);
    return `<!-- help:${name} -->\n\`\`\`text\n${text}\n\`\`\`\n<!-- /help -->`;
  });
}
