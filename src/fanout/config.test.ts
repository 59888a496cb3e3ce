import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { parseConfig } from '../core/config.ts';
import { onlyTargets, readFanoutConfig, resolveFanoutConfig } from './config.ts';

const folder = mkdtempSync(join(tmpdir(), 'pgwfan-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const text = `
replication:
  publication_name: shop_pub
  source:
    host: src.example
    port: 5432
    user: repl
    password: \${SRC_PW}
    database: shop
  targets:
    - name: reports
      subscription_name: shop_reports
      host: rep.example
      user: repl
      password_file: secret.txt
      database: shop
      settings: { enable_initial_sync: false }
    - name: search
      engine: stream
      uri: postgresql://u@s.example:5433/idx
      tables: [public.products]
      renames: { products: catalog.items }
  tables: [orders, sales.*]
  settings:
    max_wait_attempts: 5
    wait_interval_seconds: 0.5
    max_retained_wal: 10GB
`;
const parse = (yaml: string, env: NodeJS.ProcessEnv = { SRC_PW: 'swordfish1' }) => resolveFanoutConfig(parseConfig(yaml, join(folder, 'c.yml'), 'yaml'), { HOME: folder, ...env });

describe('fan-out configuration', () => {
  it('resolves variables, secret files, defaults and overrides', () => {
    writeFileSync(join(folder, 'secret.txt'), 'from-file\n');
    const config = parse(text);
    expect(config).toMatchObject({ publication: 'shop_pub', source: { hosts: [{ host: 'src.example', port: 5432 }], password: 'swordfish1' }, waitAttempts: 5, waitIntervalMs: 500, maxRetainedWal: 10 * 1024 ** 3, healthPort: 3000 });
    expect(config.targets).toMatchObject([
      { name: 'reports', engine: 'native', subscription: 'shop_reports', initialSync: false, tables: ['orders', 'sales.*'], connection: { password: 'from-file' } },
      { name: 'search', engine: 'stream', subscription: 'shop_pub_search', initialSync: true, tables: ['public.products'], renames: { products: 'catalog.items' }, connection: { hosts: [{ host: 's.example', port: 5433 }] } },
    ]);
  });

  it.each([
    ['an unknown key, with its line and the nearest one', text.replace('publication_name', 'publicaton_name'), /line 3: unknown key "publicaton_name"/],
    ['a variable that is not set', text.replace('SRC_PW', 'NO_SUCH_VARIABLE'), /line 8: the variable NO_SUCH_VARIABLE is not set/],
    ['two targets of one name', text.replace('name: search', 'name: reports'), /two targets are called "reports"/],
    ['renames with a native subscription', text.replace('engine: stream', 'engine: native'), /cannot do/],
    ['a secret file that is not there', text.replace('secret.txt', 'nope.txt'), /cannot read nope.txt/],
    ['a size that is none', text.replace('10GB', '10 bananas'), /line 27: .*not a size/],
    ['no address', text.replace('host: rep.example', 'port: 5432'), /neither uri nor host/],
    ['YAML that is none', text.replace('  tables:', ' tables:'), /not valid YAML|line \d+/],
  ])('refuses %s', (_what, yaml, message) => {
    writeFileSync(join(folder, 'secret.txt'), 'x');
    expect(() => parse(yaml)).toThrow(expect.objectContaining({ message: expect.stringMatching(message) as unknown, exitCode: 2 }));
  });

  it('is found by CONFIG_FILE, and in REPLICATION_CONFIG where there is no file', () => {
    writeFileSync(join(folder, 'secret.txt'), 'x');
    const json = JSON.stringify({ replication: { publication_name: 'p', source: { uri: 'postgresql://a@b/c' }, targets: [{ name: 't', uri: 'postgresql://a@d/c' }], tables: ['x'] } });
    writeFileSync(join(folder, 'r.json'), json);
    expect(readFanoutConfig(undefined, { HOME: folder, CONFIG_FILE: join(folder, 'r.json') }).publication).toBe('p');
    expect(readFanoutConfig(undefined, { HOME: folder, REPLICATION_CONFIG: json }).path).toBe('REPLICATION_CONFIG');
    expect(() => readFanoutConfig(undefined, { HOME: folder })).toThrow(/no configuration found/);
  });

  const withLog = (nats: string, rest = '') => `replication:
  publication_name: p
  engine: stream
  source: { uri: postgresql://u@src/db }
  log:
    nats:
      servers: [nats://one:4222, nats://two:4222]
      stream: shop
      ${nats}
  tables: [orders]
${rest}`;

  it('takes a log on NATS, with secrets from variables and files, and then needs no targets', () => {
    writeFileSync(join(folder, 'nats.creds'), 'creds-text\n');
    expect(parse(withLog('user: u\n      password: ${NATS_PW}\n      max_bytes: 2GB\n      max_age: 12h\n      tls_ca_file: ca.pem'), { NATS_PW: 'nats-secret' })).toMatchObject({
      targets: [], log: { servers: ['nats://one:4222', 'nats://two:4222'], stream: 'shop', user: 'u', password: 'nats-secret', replicas: 1, maxBytes: 2 * 1024 ** 3, maxAgeMs: 43_200_000, tlsCaFile: join(folder, 'ca.pem') },
    });
    expect(parse(withLog('credentials_file: nats.creds')).log).toMatchObject({ credentials: 'creds-text', maxBytes: 10 * 1024 ** 3, maxAgeMs: 7 * 86_400_000 });
  });

  it.each([
    ['a server that is none', withLog('replicas: 1').replace('nats://one:4222', 'http://one/x'), /line 7: not the address of a NATS server: http:\/\/one\/x/],
    ['a password in an address', withLog('replicas: 1').replace('nats://one', 'nats://u:geheim@one'), /line 7: the address of a NATS server holds a user or a password/],
    ['a stream\'s name with a dot', withLog('replicas: 1').replace('stream: shop', 'stream: shop.a'), /line 8: .*a stream's name/],
    ['an unknown key', withLog('replica: 1'), /line 9: unknown key "replica"/],
    ['a password without a user', withLog('password: x'), /line 9: log.nats has a password and no user/],
    ['two kinds of credentials', withLog('user: a\n      token: b'), /more than one of user, token and credentials/],
    ['a key without its certificate', withLog('tls_key_file: a.pem'), /belong together/],
    ['a secret that is not there', withLog('token_file: none.txt'), /line 9: cannot read none.txt/],
    ['a size that is none', withLog('max_bytes: much'), /line 9: .*not a size/],
    ['no room', withLog('max_bytes: 1kB'), /line 9: a stream of less than 1 MB/],
    ['no targets without a log', withLog('replicas: 1').replace(/  log:[^]*replicas: 1\n/, ''), /no targets are given/],
  ])('refuses a log with %s', (_what, yaml, message) => {
    expect(() => parse(yaml)).toThrow(expect.objectContaining({ message: expect.stringMatching(message) as unknown, exitCode: 2 }));
    expect(() => parse(yaml)).not.toThrow(/geheim/);
  });

  it('can be cut to some of its targets; stream targets share a slot where there is no log', () => {
    const targets = `  targets:
    - { name: a, uri: postgresql://u@a/db }
    - { name: b, uri: postgresql://u@b/db }
    - { name: c, uri: postgresql://u@c/db, engine: native }
`;
    const shared = parse(withLog('replicas: 1', targets));
    expect(onlyTargets(shared, ['b']).targets.map((t) => t.name)).toEqual(['b']);
    expect(onlyTargets(shared, undefined)).toBe(shared);
    expect(() => onlyTargets(shared, ['b', 'x'])).toThrow(/has no target "x"/);
    const alone = { ...shared, log: undefined };
    expect(onlyTargets(alone, ['c']).targets.map((t) => t.name)).toEqual(['c']);
    expect(() => onlyTargets(alone, ['a', 'c'])).toThrow(/shares a slot/);
  });
});
