// A follower in a process of its own: tests kill it.
import { parseConninfo } from '../../src/pg/conninfo.ts';
import { follow, type FollowOptions } from '../../src/workflows/follow.ts';

const { source, target, ...rest } = JSON.parse(process.argv[2]!) as { source: string; target: string; job: string } & Partial<FollowOptions>;
const abort = new AbortController();
process.on('SIGTERM', () => abort.abort());
await follow({ ...rest, source: parseConninfo(source), target: parseConninfo(target), signal: abort.signal });
