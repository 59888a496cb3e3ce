import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { isIP } from 'node:net';
import { hostname } from 'node:os';
import { tokenProtocolPrefix } from './feed-protocol.ts';

/** Who may talk to the server. Pure functions of headers, so that REST and WebSocket are judged alike. */
export interface AccessRules {
  /** The address that is listened on. */
  readonly host: string;
  readonly token: string | undefined;
  /** More names that the server is reached by, such as a proxy's. */
  readonly allowedHosts: readonly string[];
}

export type Refusal = { readonly status: 401 | 403; readonly code: string; readonly message: string; readonly hint: string };

const loopbackNames = new Set(['localhost', '127.0.0.1', '::1']);

/** Whether only this machine reaches an address that is listened on. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127\.\d+\.\d+\.\d+$/.test(host);
}

/**
 * Host and Origin, for every request. A Host that is not ours means that a foreign name was pointed at this address (DNS rebinding); an Origin
 * that is not the Host means that another site's page asks. Without Origin it is no browser's cross-site request (Fetch standard, "Origin header").
 */
export function judgeOrigin(headers: IncomingHttpHeaders, rules: AccessRules): Refusal | null {
  const host = hostNameOf(headers.host);
  if (host === null || !isOwnHost(host, rules)) {
    return { status: 403, code: 'foreign-host', message: `this server is not reached by the name ${JSON.stringify(headers.host ?? '')}`, hint: 'Use its address, or allow the name with --api-allow-host.' };
  }
  const { origin } = headers;
  if (origin !== undefined && !isSameOrigin(origin, headers.host!)) {
    return { status: 403, code: 'foreign-origin', message: 'requests from pages of other sites are refused', hint: 'Open the dashboard that this server serves itself.' };
  }
  return null;
}

/** The token, where one is set: as a Bearer token or in the WebSocket's subprotocols. */
export function judgeToken(headers: IncomingHttpHeaders, rules: AccessRules): Refusal | null {
  if (rules.token === undefined) return null;
  const given = bearerToken(headers.authorization) ?? protocolToken(headers['sec-websocket-protocol']);
  if (given !== null && sameSecret(given, rules.token)) return null;
  return { status: 401, code: given === null ? 'token-required' : 'token-wrong', message: given === null ? 'a token is required' : 'the token is not right', hint: 'Send "Authorization: Bearer TOKEN" with the value of --api-token.' };
}

function isOwnHost(host: string, rules: AccessRules): boolean {
  if (loopbackNames.has(host) || rules.allowedHosts.includes(host)) return true;
  if (isLoopback(rules.host)) return host === rules.host;
  // Rebinding needs a name; an address in Host was typed as an address.
  return host === rules.host.toLowerCase() || isIP(host) !== 0 || host === hostname().toLowerCase();
}

function isSameOrigin(origin: string, host: string): boolean {
  // The scheme may differ: a proxy in front may speak TLS.
  return /^https?:/i.test(origin) && URL.canParse(origin) && new URL(origin).host === new URL(`${new URL(origin).protocol}//${host}`).host;
}

/** `[::1]:7654` is `::1`; null for what is no host. */
function hostNameOf(header: string | undefined): string | null {
  if (header === undefined || !/^[\w.:[\]-]+$/.test(header) || !URL.canParse(`http://${header}`)) return null;
  return new URL(`http://${header}`).hostname.replace(/^\[(.*)\]$/, '$1').toLowerCase();
}

function bearerToken(header: string | undefined): string | null {
  return /^Bearer (.+)$/i.exec(header ?? '')?.[1] ?? null;
}

function protocolToken(header: string | undefined): string | null {
  const found = (header ?? '').split(',').map((part) => part.trim()).find((part) => part.startsWith(tokenProtocolPrefix));
  return found === undefined ? null : Buffer.from(found.slice(tokenProtocolPrefix.length), 'base64url').toString('utf8');
}

/** Takes the same time whatever is given: hashes have one length, and timingSafeEqual looks at all of it. */
function sameSecret(a: string, b: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(a), digest(b));
}
