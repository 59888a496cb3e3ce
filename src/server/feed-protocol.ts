/** Subprotocols of the WebSocket. No imports: the dashboard uses them too. */

/** Prefix of the subprotocol that carries the token, base64url: a browser can set no header there, and a URL would be logged by proxies. */
export const tokenProtocolPrefix = 'pgweave.token.';
export const feedProtocol = 'pgweave.feed';
