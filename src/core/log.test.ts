import { describe, expect, it } from 'vitest';
import { PgweaveError } from './errors.ts';
import { createLog } from './log.ts';
import { rememberSecret } from './redact.ts';

function capture() {
  let text = '';
  return { write: (chunk: string) => void (text += chunk), text: () => text };
}

describe('log', () => {
  it('writes JSON lines where nobody watches, and none of the secrets', async () => {
    const out = capture();
    rememberSecret('s3"cret\\word');
    const log = (await createLog({ stream: out })).child({ uri: 'postgres://a:s3"cret\\word@h/d', password: 'other' });
    log.info({ nested: { apiToken: 'abc', list: ['password=qwertz'] }, big: 12n }, 'connected with s3"cret\\word');
    log.error({ err: new PgweaveError('x', 'it broke: s3"cret\\word', { hint: 'look' }) }, 'failed');
    log.debug('not shown');
    const lines = out.text().trim().split('\n').map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(lines).toHaveLength(2);
    expect(lines[0]).toMatchObject({ level: 'info', msg: 'connected with ***', uri: 'postgres://a:***@h/d', password: '***', nested: { apiToken: '***', list: ['password=***'] }, big: '12' });
    expect(lines[1]).toMatchObject({ level: 'error', err: { code: 'x', hint: 'look', message: 'it broke: ***' } });
    expect(out.text()).not.toContain('cret');
  });

  it('writes for people on a terminal', async () => {
    const out = capture();
    (await createLog({ stream: out, format: 'human' })).warn({ table: 'public.orders', hint: 'Try again.' }, 'paused');
    expect(out.text()).toMatch(/WARN.*paused\. Try again\..*public\.orders/);
  });
});
