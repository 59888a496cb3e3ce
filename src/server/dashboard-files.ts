import fastifyStatic from '@fastify/static';
import type { FastifyInstance } from 'fastify';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Needs no token: holds no facts of the job. */
    open?: boolean;
  }
}

/** Everything from this server, nothing inline, nobody may frame it. */
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** Where the build put the dashboard: beside this file's folder in the package, in dist/ when run from source. Null where it was not built. */
export function dashboardFolder(): string | null {
  for (const place of ['../web/', '../../dist/web/']) {
    const folder = fileURLToPath(new URL(place, import.meta.url));
    if (existsSync(`${folder}index.html`)) return folder;
  }
  return null;
}

/** The dashboard of a folder at `/`, or where it was not built a word about that. Its own routes live behind `#`, so every page is index.html. */
export async function registerDashboard(app: FastifyInstance, root: string | null): Promise<void> {
  if (root === null) {
    app.get('/', { schema: { hide: true }, config: { open: true } }, async (_request, reply) =>
      reply.code(404).type('text/plain; charset=utf-8').send('The dashboard was not built: run npm run build. The API is at /api/docs.\n'));
    return;
  }
  await app.register(async (files) => {
    files.addHook('onRoute', (route) => {
      route.config = { ...route.config, open: true };
      route.schema = { ...route.schema, hide: true };
    });
    await files.register(fastifyStatic, {
      root, prefix: '/', preCompressed: true, cacheControl: false, index: ['index.html'], wildcard: false,
      setHeaders: (reply, path) => {
        reply.setHeader('content-security-policy', contentSecurityPolicy);
        // Names under assets/ hold a hash of their contents.
        reply.setHeader('cache-control', path.includes('/assets/') ? 'public, max-age=31536000, immutable' : 'no-cache');
      },
    });
  });
}
