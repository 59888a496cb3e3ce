// A follower in a process of its own, so that its memory is its own.
import { parseConninfo } from '../../src/pg/conninfo.ts';
import type * as follow from '../../src/workflows/follow.ts';

// The build: what people run, and without what a TypeScript loader adds to every closure.
const { Follower } = (await import(new URL('../../dist/workflows/follow.js', import.meta.url).href)) as typeof follow;

const options = JSON.parse(process.argv[2]!) as { source: string; target: string; job: string };
const say = (message: unknown) => new Promise<void>((resolve) => process.send!(message, () => resolve()));
// Loading and compiling is no part of the stream's work.
const before = process.resourceUsage();
const atStart = Math.round((before.userCPUTime + before.systemCPUTime) / 1000);
await say('ready');
await new Promise((resolve) => process.once('message', resolve));
const source = parseConninfo(options.source);
const follower = await Follower.open({
  source, target: parseConninfo(options.target), job: options.job, slot: options.job, publications: ['bench'],
  onEvent: (event) => {
    if (process.env['BENCH_VERBOSE'] && (event.type === 'log' || event.type === 'warning')) process.stderr.write(`${event.message}\n`);
  },
});
const running = follower.run();
await new Promise((resolve) => process.once('message', resolve));
const { maxRSS, userCPUTime, systemCPUTime } = process.resourceUsage();
await say({ peak: maxRSS * 1024, cpuMs: Math.round((userCPUTime + systemCPUTime) / 1000) - atStart });
follower.stop();
await running;
await follower[Symbol.asyncDispose]();
process.disconnect();
