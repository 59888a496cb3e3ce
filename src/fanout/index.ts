/** One source, many targets: the service as functions. */
export { configurationPaths, onlyTargets, readFanoutConfig, resolveFanoutConfig, type Engine, type FanoutConfig, type FanoutTarget, type TableRules } from './config.ts';
export type { FanoutHealth, TargetHealth, TargetState } from './health.ts';
export { PublishService } from './publish-service.ts';
export { FanoutService } from './service.ts';
export { setUpSchema } from './setup-schema.ts';
export { startHealthServer, type HealthServer } from './health-server.ts';
