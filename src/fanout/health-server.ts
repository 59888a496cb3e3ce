import Fastify, { type FastifyInstance } from 'fastify';
import { Gauge, Registry } from 'prom-client';
import { errorMessage, PgweaveError } from '../core/errors.ts';
import type { FanoutHealth } from './health.ts';

/** What has a health: the service of targets, or the publisher. */
export interface Healthy {
  health(): FanoutHealth;
}

export interface HealthServer extends AsyncDisposable {
  readonly url: string;
}

/** `/health` (JSON, 503 when unhealthy), `/ready`, `/metrics`. Nothing can be changed through it, and no secret stands in it. */
export async function startHealthServer(service: Healthy, host: string, port: number): Promise<HealthServer> {
  const app = Fastify({ logger: false, bodyLimit: 1024 });
  const metrics = fanoutMetrics(service);
  app.get('/health', async (_request, reply) => {
    const health = service.health();
    return reply.code(health.status === 'healthy' ? 200 : 503).send(health);
  });
  app.get('/ready', async (_request, reply) => {
    const { ready } = service.health();
    return reply.code(ready ? 200 : 503).send({ ready });
  });
  app.get('/metrics', async (_request, reply) => reply.type(metrics.contentType).send(await metrics.metrics()));
  try {
    const url = await listen(app, host, port);
    return { url, [Symbol.asyncDispose]: () => app.close() };
  } catch (error) {
    await app.close();
    throw new PgweaveError('health-port', `cannot listen on ${host}:${port}: ${errorMessage(error)}`, { hint: 'Choose another health_port in settings, or --health-port.', exitCode: 2, cause: error });
  }
}

function listen(app: FastifyInstance, host: string, port: number): Promise<string> {
  return app.listen({ host, port });
}

/** Names by Prometheus' conventions: base units, a prefix, labels for targets. */
function fanoutMetrics(service: Healthy): Registry {
  const registry = new Registry();
  const gauge = (name: string, help: string, read: (target: FanoutHealth['targets'][number]) => number | null) =>
    new Gauge({
      name: `pgweave_fanout_${name}`, help, labelNames: ['target', 'engine'], registers: [registry],
      collect() {
        this.reset();
        for (const target of service.health().targets) {
          const value = read(target);
          if (value !== null) this.set({ target: target.name, engine: target.engine }, value);
        }
      },
    });
  gauge('target_healthy', '1 where the target streams or copies, else 0', (t) => (t.healthy ? 1 : 0));
  gauge('target_tables', 'Tables of the target', (t) => t.tables);
  gauge('target_tables_ready', 'Tables that stream', (t) => t.tablesReady);
  gauge('target_lag_bytes', 'WAL between what the target has confirmed and now', (t) => t.lagBytes);
  gauge('target_lag_seconds', 'Replay lag as the walsender measures it', (t) => (t.lagMs === null ? null : t.lagMs / 1000));
  gauge('slot_retained_bytes', 'WAL that the slot keeps on the source', (t) => t.retainedBytes);
  new Gauge({
    name: 'pgweave_fanout_source_reachable', help: '1 where the source answers', registers: [registry],
    collect() {
      this.set(service.health().source.reachable ? 1 : 0);
    },
  });
  if (!service.health().log) return registry;
  new Gauge({
    name: 'pgweave_fanout_log_publishing', help: '1 where the publisher reads the source and NATS stores what it gives', registers: [registry],
    collect() {
      this.set(service.health().log?.publishing ? 1 : 0);
    },
  });
  new Gauge({
    name: 'pgweave_fanout_log_lag_bytes', help: 'WAL between what NATS has stored and now', registers: [registry],
    collect() {
      const lag = service.health().log?.lagBytes;
      if (lag !== null && lag !== undefined) this.set(lag);
    },
  });
  return registry;
}
