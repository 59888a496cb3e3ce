// One verification in a process of its own, so that its memory is its own.
import { parseConninfo } from '../../src/pg/conninfo.ts';
import { verify } from '../../src/workflows/verify.ts';

const options = JSON.parse(process.argv[2]!) as { source: string; target: string; jobs: number };
const began = performance.now();
const report = await verify({ source: parseConninfo(options.source), target: parseConninfo(options.target), jobs: options.jobs });
process.send!({ ms: performance.now() - began, peak: process.resourceUsage().maxRSS * 1024, ok: report.ok, differing: report.totals.differingRows });
process.disconnect();
