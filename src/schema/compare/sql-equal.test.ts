import { beforeAll, describe, expect, it } from 'vitest';
import { loadParser, sameSql } from './sql-equal.ts';

beforeAll(loadParser);

describe('sameSql', () => {
  it.each([
    ['query', ' SELECT orders.id,\n    orders.note AS n\n   FROM shop.orders\n  WHERE (orders.id > 0);', ' SELECT id,\n    note AS n\n   FROM shop.orders\n  WHERE id > 0;'],
    ['query', 'SELECT o.id FROM shop.orders o ORDER BY o.id', 'SELECT id FROM shop.orders o ORDER BY id'],
    ['query', 'WITH RECURSIVE n(i) AS (SELECT 1) SELECT n.i FROM n', 'WITH RECURSIVE n(i) AS (SELECT 1) SELECT i FROM n'],
    ['expression', `((a)::text || 'x'::text)`, `(a::text || 'x'::text)`],
    ['constraint', 'CHECK ((id > 0))', 'CHECK (id > 0)'],
    ['constraint', 'CHECK ((VALUE > 0)) NOT VALID', 'CHECK (VALUE > 0) NOT VALID'],
    ['bound', `FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')`, `FOR  VALUES FROM ('2024-01-01') TO ('2025-01-01')`],
    ['arguments', 'a integer, b integer DEFAULT (2)', 'a integer, b integer DEFAULT 2'],
    ['body', 'BEGIN ATOMIC\n SELECT (1);\nEND', 'BEGIN ATOMIC SELECT 1; END'],
  ] as const)('%s: %j is %j', (form, a, b) => {
    expect(sameSql(a, b, form)).toBe(true);
  });

  it.each([
    ['query', 'SELECT orders.id FROM shop.orders', 'SELECT orders.note FROM shop.orders'],
    ['query', 'SELECT id FROM shop.orders', 'SELECT id FROM shop.others'],
    // With two relations the qualification means something.
    ['query', 'SELECT a.id FROM a, b', 'SELECT b.id FROM a, b'],
    ['query', 'SELECT a.id FROM a WHERE EXISTS (SELECT 1 FROM b WHERE a.x = b.y)', 'SELECT a.id FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.x = b.y)'],
    ['expression', '(a + 1)', '(a + 2)'],
    ['constraint', 'CHECK (id > 0)', 'CHECK (id > 0) NO INHERIT'],
    ['statement', 'CREATE INDEX i ON s.t USING btree (a)', 'CREATE INDEX i ON s.t USING btree (a DESC)'],
    ['expression', 'does not parse (', 'does not parse ['],
  ] as const)('%s: %j is not %j', (form, a, b) => {
    expect(sameSql(a, b, form)).toBe(false);
  });
});
