import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { errorMessage } from '../core/errors.ts';
import { describeConnection, parseConninfo, publicUri } from './conninfo.ts';

const home = mkdtempSync(join(tmpdir(), 'pgwhome-'));
afterAll(() => rmSync(home, { recursive: true, force: true }));
const env = { HOME: home };

describe('parseConninfo', () => {
  it('reads a URI with everything in it', () => {
    const spec = parseConninfo('postgresql://us%20er:p%40ss:word@[::1]:5433,db2.example:5434/my%2Fdb?sslmode=require&connect_timeout=3&target_session_attrs=read-write', env);
    expect(spec).toMatchObject({
      hosts: [{ host: '::1', port: 5433 }, { host: 'db2.example', port: 5434 }], user: 'us er', password: 'p@ss:word', passwordSource: 'the connection string', database: 'my/db', sslMode: 'require', connectTimeoutMs: 3000,
      targetSessionAttrs: 'read-write',
    });
  });

  it('reads key/value strings with quotes and escapes', () => {
    expect(parseConninfo(String.raw`host = /run/pg port=5433 user='o\'neill' password='a b\\c' dbname=x`, env)).toMatchObject({ hosts: [{ host: '/run/pg', port: 5433 }], user: "o'neill", password: String.raw`a b\c`, database: 'x' });
  });

  it('takes PG* variables where the string is silent, and lets the string win', () => {
    expect(parseConninfo('host=h', { ...env, PGPORT: '7777', PGUSER: 'me', PGPASSWORD: 'from-env', PGDATABASE: 'd', PGHOST: 'other', PGSSLMODE: 'disable' })).toMatchObject({
      hosts: [{ host: 'h', port: 7777 }], user: 'me', password: 'from-env', passwordSource: 'PGPASSWORD', database: 'd', sslMode: 'disable',
    });
  });

  it('finds the password in the password file and says on which line; ignores a file that others can read', () => {
    const passfile = join(home, '.pgpass');
    writeFileSync(passfile, '# comment\nother:5432:*:app:wrong\ndb\\:x:*:shop:app:se\\:cret\n*:*:*:*:last\n', { mode: 0o600 });
    expect(parseConninfo('host=db:x dbname=shop user=app', env)).toMatchObject({ password: 'se:cret', passwordSource: '~/.pgpass, line 3' });
    chmodSync(passfile, 0o644);
    expect(parseConninfo('host=db dbname=shop user=app', env).password).toBeUndefined();
  });

  it('reads a service, which the string overrides', () => {
    writeFileSync(join(home, '.pg_service.conf'), '[a]\nhost=wrong\n[shop]\n# x\nhost=db.example\nport=6543\ndbname=shop\nuser=app\npassword=from-service\n[b]\nport=1\n');
    expect(parseConninfo('service=shop port=6544', env)).toMatchObject({ hosts: [{ host: 'db.example', port: 6544 }], password: 'from-service', passwordSource: 'the service file', database: 'shop' });
    expect(() => parseConninfo('service=nope', env)).toThrow(/service "nope"/);
  });

  it.each([
    ['postgresql://u:p%zz@h/db', /percent-encoding in the password/], ['postgresql://h:99999/db', /not a port/], ['postgresql://h/db?sslmod=x', /unknown connection parameter "sslmod"/], ["host='abc", /not closed/], ['nonsense', /not a connection string/],
    ['host=a,b,c port=1,2', /3 hosts but 2 ports/], ['sslmode=sometimes', /unknown sslmode/], ['postgresql://a:b:c/db', /more than one colon/], ['hostt=x', /unknown connection parameter "hostt"/],
  ])('refuses %s with exit code 2', (text, message) => {
    expect(() => parseConninfo(text, env)).toThrow(expect.objectContaining({ message: expect.stringMatching(message) as unknown, exitCode: 2 }));
  });

  it.each([
    'postgresql://app:sesame@x:key/word@h/db', 'postgresql://app:sesame/key@h/db', 'postgresql://app:sesame?key@h/db', 'postgresql://app:sesame?key=word@h/db', 'postgresql://app:a@sesame?key@h/db', 'app:sesame@h/db', 'app:sesame@key@h/db', 'host=h password=a sesame key', 'postgresql://app:1/sesame@h/db',
  ])('shows no part of the password that breaks %s', (text) => {
    let shown = '';
    try {
      parseConninfo(text, env);
    } catch (error) {
      expect(error).toMatchObject({ exitCode: 2 });
      shown = `${(error as Error).message} ${(error as { hint?: string }).hint}`;
    }
    expect(shown).not.toBe('');
    expect(shown).not.toMatch(/sesame|key|word@/);
  });

  it('takes an @ where it means nothing else', () => {
    expect(parseConninfo('postgresql://h:5433,[::1]:5434/db?application_name=a@b', env)).toMatchObject({ hosts: [{ host: 'h', port: 5433 }, { host: '::1', port: 5434 }], database: 'db' });
    expect(parseConninfo('postgresql://app:a@b@h/d%40b', env)).toMatchObject({ password: 'a@b', database: 'd@b' });
  });

  it('never shows a password', () => {
    const spec = parseConninfo('postgresql://app:hunter2hunter2@h:5433/shop?sslmode=disable', env);
    expect(publicUri(spec)).toBe('postgresql://app@h:5433/shop?sslmode=disable');
    expect(parseConninfo(publicUri(spec), env)).toMatchObject({ hosts: spec.hosts, user: 'app', database: 'shop', sslMode: 'disable' });
    expect(describeConnection(spec)).toBe('h:5433/shop');
    expect(errorMessage(new Error('server said hunter2hunter2'))).toBe('server said ***');
    expect(errorMessage(new Error('postgresql://a:zzz@h and password=abc x'))).toBe('postgresql://a:***@h and password=*** x');
  });
});
