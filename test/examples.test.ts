import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { parse } from 'yaml';
import { z } from 'zod';
import { describe, expect, it } from 'vitest';
import { parseConfig } from '../src/core/config.ts';
import { resolveFanoutConfig } from '../src/fanout/config.ts';

const examples = join(import.meta.dirname, '../examples');

/** The part of the Compose specification that the examples use; anything else is a fault here. */
const service = z.strictObject({
  image: z.string().optional(), build: z.string().optional(), command: z.array(z.string()).optional(), environment: z.record(z.string(), z.string()).optional(), secrets: z.array(z.string()).optional(), volumes: z.array(z.string()).optional(),
  healthcheck: z.strictObject({ test: z.array(z.string()).min(2), interval: z.string(), timeout: z.string(), retries: z.number() }).optional(), read_only: z.boolean().optional(), tmpfs: z.array(z.string()).optional(), ports: z.array(z.string()).optional(),
  depends_on: z.record(z.string(), z.strictObject({ condition: z.enum(['service_healthy', 'service_started']) })).optional(), restart: z.string().optional(), stop_grace_period: z.string().optional(), profiles: z.array(z.string()).optional(),
}).refine((s) => (s.image === undefined) !== (s.build === undefined), 'either image or build');
const compose = z.strictObject({ services: z.record(z.string(), service), volumes: z.record(z.string(), z.strictObject({})).optional(), secrets: z.record(z.string(), z.strictObject({ file: z.string() })).optional() });

describe.each(['fanout', 'migrate'])('examples/%s', (name) => {
  const file = join(examples, name, 'docker-compose.yml');
  const document = compose.parse(parse(readFileSync(file, 'utf8'), { merge: true }));

  it('refers to services, volumes, secrets and files that are there', () => {
    for (const [serviceName, s] of Object.entries(document.services)) {
      for (const other of Object.keys(s.depends_on ?? {})) expect(Object.keys(document.services), serviceName).toContain(other);
      for (const secret of s.secrets ?? []) expect(Object.keys(document.secrets ?? {}), serviceName).toContain(secret);
      for (const volume of s.volumes ?? []) {
        const from = volume.split(':')[0]!;
        if (from.startsWith('.')) expect(existsSync(resolve(dirname(file), from)), `${serviceName}: ${from}`).toBe(true);
        else expect(Object.keys(document.volumes ?? {}), serviceName).toContain(from);
      }
      if (s.build !== undefined) expect(existsSync(resolve(dirname(file), s.build, 'Dockerfile'))).toBe(true);
    }
    for (const secret of Object.values(document.secrets ?? {})) expect(existsSync(resolve(dirname(file), secret.file))).toBe(true);
  });
});

describe('examples/fanout/replication-config.yml', () => {
  it('is a configuration that is accepted', () => {
    const path = join(examples, 'fanout/replication-config.yml');
    // In the container the password is a mounted secret.
    const text = readFileSync(path, 'utf8').replaceAll('/run/secrets/replicator_password', join(examples, 'fanout/replicator_password.txt'));
    const config = resolveFanoutConfig(parseConfig(text, path, 'yaml'), { HOME: '/nonexistent' });
    expect(config.targets.map((t) => [t.name, t.engine])).toEqual([['reports', 'native'], ['search', 'stream']]);
  });
});

describe('examples/fanout/nats-config.yml', () => {
  it('is a configuration that is accepted, on a machine that knows its own secrets alone', () => {
    const path = join(examples, 'fanout/nats-config.yml');
    const config = resolveFanoutConfig(parseConfig(readFileSync(path, 'utf8'), path, 'yaml'), { HOME: '/nonexistent', SOURCE_PASSWORD: 'a', NATS_PASSWORD: 'b', SEARCH_PASSWORD: 'c' });
    expect(config.log).toMatchObject({ stream: 'shop_changes', replicas: 3, maxBytes: 50 * 1024 ** 3 });
    expect(config.targets.map((t) => t.name)).toEqual(['reports', 'search']);
  });
});
