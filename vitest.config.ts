import { defineConfig } from 'vitest/config';

// Two projects: tests without a server, and tests on real servers. Both run under `npm test`.
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          // One project after the other: the servers' tests are not disturbed by the unit tests' load.
          sequence: { groupOrder: 0 },
          include: ['src/**/*.test.ts', 'src/**/*.test.tsx', 'test/**/*.test.ts', 'web/src/**/*.test.ts', 'web/src/**/*.test.tsx', 'bench/**/*.test.ts'],
          exclude: ['**/*.pg.test.ts', '**/node_modules/**'],
          testTimeout: 30_000,
        },
      },
      {
        test: {
          name: 'pg',
          sequence: { groupOrder: 1 },
          include: ['src/**/*.pg.test.ts', 'test/**/*.pg.test.ts'],
          globalSetup: ['test/support/global-setup.ts'],
          testTimeout: 240_000,
          hookTimeout: 240_000,
          pool: 'forks',
          maxWorkers: 2,
          // A failed test is tried twice more where nobody watches, and listed as flaky: that list is a list of bugs.
          retry: process.env['CI'] ? 2 : 0,
        },
      },
    ],
  },
});
