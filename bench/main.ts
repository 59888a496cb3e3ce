// `npm run bench -- NAME [options]`: runs one benchmark as a process of its own. `npm run bench` lists them.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

const [name, ...rest] = process.argv.slice(2);
const files = readdirSync(import.meta.dirname).filter((file) => file.endsWith('.ts') && file !== 'main.ts');
const names = files.map((file) => file.slice(0, -3));
if (name === undefined || !names.includes(name) || !existsSync(join(import.meta.dirname, `${name}.ts`))) {
  process.stderr.write(`${name === undefined ? '' : `no such benchmark: ${name}\n`}npm run bench -- NAME [options], NAME one of: ${names.join(', ')}\n`);
  process.exitCode = name === undefined ? 0 : 2;
} else {
  const run = spawnSync(process.execPath, ['--import', import.meta.resolve('tsx'), join(import.meta.dirname, `${name}.ts`), ...rest], { stdio: 'inherit' });
  process.exitCode = run.status ?? 1;
}
