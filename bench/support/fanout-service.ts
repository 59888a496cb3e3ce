// The fan-out service in a process of its own, from the build: what people run. In the process that writes the load, each would slow the other down, and the service alone would be blamed.
import type * as fanout from '../../src/fanout/index.ts';
import type * as config from '../../src/core/config.ts';
import type * as log from '../../src/core/log.ts';

const dist = <T>(path: string) => import(new URL(`../../dist/${path}`, import.meta.url).href) as Promise<T>;
const { FanoutService, resolveFanoutConfig } = await dist<typeof fanout>('fanout/index.js');
const { parseConfig } = await dist<typeof config>('core/config.js');
const { createLog } = await dist<typeof log>('core/log.js');

const service = new FanoutService(resolveFanoutConfig(parseConfig(process.argv[2]!, 'bench.json', 'json')), await createLog({ level: 'error', format: 'json' }));
service.start();
const ready = setInterval(() => {
  if (!service.health().targets.every((t) => t.state === 'streaming')) return;
  clearInterval(ready);
  process.send!('streaming');
}, 50);
// Anything from the parent ends it.
await new Promise((resolve) => process.once('message', resolve));
await service.stop();
process.disconnect();
