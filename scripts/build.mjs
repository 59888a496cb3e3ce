// Builds the package: TypeScript to dist/, then the dashboard to dist/web/. Built beside and moved into place, so that a running pgweave keeps its files.
import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import { chmodSync, existsSync, renameSync, rmSync } from 'node:fs';

const fresh = `dist.${process.pid}`;
// Vite is told whole paths: its versions differ in what a relative one starts from.
const webOut = resolve(fresh, 'web');

function run(command, args) {
  const result = spawnSync(process.execPath, [command, ...args], { stdio: 'inherit' });
  if (result.status === 0) return;
  rmSync(fresh, { recursive: true, force: true });
  process.exit(result.status ?? 1);
}

run('node_modules/typescript/bin/tsc', ['-p', 'tsconfig.build.json', '--outDir', fresh]);
if (existsSync('web/vite.config.ts')) run('node_modules/vite/bin/vite.js', ['build', '--config', 'web/vite.config.ts', '--outDir', webOut, '--emptyOutDir', '--logLevel', 'warn']);
chmodSync(`${fresh}/cli/main.js`, 0o755);
rmSync('dist', { recursive: true, force: true });
renameSync(fresh, 'dist');
