import { usageError } from '../../core/errors.ts';
import type { ConnectionSpec } from '../../pg/conninfo.ts';
import { quoteConninfo } from '../../pg/identifiers.ts';

/** What the target's own workers connect to the source with. */
export interface SubscriptionConnection {
  /** For CREATE SUBSCRIPTION; stored in the target's catalog, readable there by superusers. */
  readonly conninfo: string;
  /** The password stands in it. */
  readonly storesPassword: boolean;
}

export interface SubscriptionConnectionOptions {
  /** The address that the target uses where it is not ours. */
  readonly sourceForTarget?: ConnectionSpec | undefined;
  /** A password file on the TARGET's machine, readable by its server, instead of a stored password. */
  readonly passfile?: string | undefined;
}

export function isLoopback(host: string): boolean {
  return host === '' || host === 'localhost' || host.startsWith('/') || host === '::1' || host.startsWith('127.');
}

/**
 * The conninfo that a subscription stores. Certificates and keys are files of this machine and are left out unless the address is given for the target.
 * Throws a usage error where the source's address means this machine and the target is another one: there it would mean the target itself.
 */
export function subscriptionConnection(source: ConnectionSpec, target: ConnectionSpec, options: SubscriptionConnectionOptions = {}): SubscriptionConnection {
  const from = options.sourceForTarget ?? source;
  if (!options.sourceForTarget) {
    const [local] = source.hosts.filter((h) => isLoopback(h.host));
    if (local && target.hosts.some((h) => !isLoopback(h.host))) {
      throw usageError(`the target would take "${local.host}" for itself: its workers connect to the source on their own`, `Give the address at which the target ${target.hosts[0]!.host} reaches the source: --source-for-target postgresql://${source.user}@HOST:${local.port}/${source.database}`);
    }
  }
  const parts: [string, string][] = [['host', from.hosts.map((h) => h.host).join(',')], ['port', from.hosts.map((h) => h.port).join(',')], ['dbname', from.database], ['user', from.user]];
  const storesPassword = options.passfile === undefined && from.password !== undefined;
  if (options.passfile !== undefined) parts.push(['passfile', options.passfile]);
  else if (from.password !== undefined) parts.push(['password', from.password]);
  if (from.sslMode !== 'prefer') parts.push(['sslmode', from.sslMode]);
  if (options.sourceForTarget?.sslRootCert !== undefined && (from.sslMode === 'verify-ca' || from.sslMode === 'verify-full')) parts.push(['sslrootcert', options.sourceForTarget.sslRootCert]);
  if (from.options !== undefined) parts.push(['options', from.options]);
  if (from.hosts.length > 1 && from.targetSessionAttrs !== 'any') parts.push(['target_session_attrs', from.targetSessionAttrs]);
  return { conninfo: parts.map(([name, value]) => `${name}=${quoteConninfo(value)}`).join(' '), storesPassword };
}
