/** One source, many targets: the service as functions. */
export { configurationPaths, readFanoutConfig, resolveFanoutConfig, type Engine, type FanoutConfig, type FanoutTarget, type TableRules } from './config.ts';
export { FanoutService, type FanoutHealth } from './service.ts';
export { setUpSchema } from './setup-schema.ts';
export { startHealthServer, type HealthServer } from './health-server.ts';
export type { TargetHealth, TargetState } from './target-keeper.ts';
