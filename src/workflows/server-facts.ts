import type { ServerFacts } from '../core/events.ts';
import type { Session } from '../pg/session.ts';
import { detectProvider, providerNames } from '../preflight/provider.ts';

/** Who answers at the other end of a session, for people: host, port, database, version such as `17.2`, and whose service it is. */
export async function serverFacts(session: Session): Promise<ServerFacts> {
  return { host: session.host.host, port: session.host.port, database: session.spec.database, version: session.serverVersionText.split(' ')[0]!, provider: providerNames[await detectProvider(session)] };
}
