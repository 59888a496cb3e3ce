import { subscribedTables, subscriptionByName, type SubscribedTableRow, type SubscriptionRow } from '../../catalog/subscriptions.ts';
import { errorMessage, PgweaveError } from '../../core/errors.ts';
import { redact } from '../../core/redact.ts';
import { describeConnection, type ConnectionSpec } from '../../pg/conninfo.ts';
import { quoteIdent, quoteLiteral } from '../../pg/identifiers.ts';
import type { Session } from '../../pg/session.ts';
import { sqlstate, sqlstateOf } from '../../pg/sqlstate.ts';

export interface SubscriptionSettings {
  /** off, on, parallel: in-progress transactions. `parallel` needs 16 on the target and falls back to `on`. */
  readonly streaming: 'off' | 'on' | 'parallel';
  readonly binary: boolean;
  /** PREPARE TRANSACTION is replicated as such; 15 and newer. Cannot be changed later before 18. */
  readonly twoPhase: boolean;
  /** none: changes that the source itself got by replication stay out; 16 and newer on both sides. */
  readonly origin: 'any' | 'none';
}

export function subscriptionMark(job: string): string {
  return `made by pgweave for job ${job}`;
}

export async function readSubscription(target: Session, name: string): Promise<SubscriptionRow | undefined> {
  return (await target.query<SubscriptionRow>(subscriptionByName(name, target.serverVersion)))[0];
}

export function readSubscribedTables(target: Session, name: string): Promise<SubscribedTableRow[]> {
  return target.query<SubscribedTableRow>(subscribedTables(name));
}

/** Throws where the subscription is there and was not made by this job. */
export function checkOurs(subscription: SubscriptionRow | undefined, job: string): void {
  if (!subscription || subscription.comment === subscriptionMark(job)) return;
  throw new PgweaveError('subscription-not-ours', `subscription ${subscription.name} is there already on the target and was not made by this job`, { hint: `Choose another --job; or, if nobody needs it, on the target: DROP SUBSCRIPTION ${quoteIdent(subscription.name)};`, exitCode: 2 });
}

function settingsText(settings: SubscriptionSettings, version: number): string[] {
  return [
    `streaming = ${settings.streaming === 'parallel' && version < 160_000 ? 'on' : settings.streaming}`, `binary = ${settings.binary}`,
    ...(version >= 160_000 ? [`origin = ${settings.origin}`] : []),
  ];
}

export interface CreateSubscription {
  readonly job: string;
  readonly name: string;
  readonly conninfo: string;
  readonly slot: string;
  readonly publications: readonly string[];
  readonly copyData: boolean;
  readonly settings: SubscriptionSettings;
  /** For messages. */
  readonly source: ConnectionSpec;
}

/**
 * Makes a subscription on a slot that is there already; disabled, so that the caller can look at it first. In one transaction with the comment that says whose it is.
 * The target connects to the source to read the publications' tables: an address that only we can reach fails here, before anything runs.
 */
export async function createSubscription(target: Session, options: CreateSubscription): Promise<void> {
  const { name, settings } = options;
  const list = ['create_slot = false', 'enabled = false', `slot_name = ${quoteLiteral(options.slot)}`, `copy_data = ${options.copyData}`, ...settingsText(settings, target.serverVersion), ...(settings.twoPhase ? ['two_phase = true'] : [])];
  try {
    await target.transaction(async () => {
      await target.query(`create subscription ${quoteIdent(name)} connection ${quoteLiteral(options.conninfo)} publication ${options.publications.map(quoteIdent).join(', ')} with (${list.join(', ')})`);
      await target.query(`comment on subscription ${quoteIdent(name)} is ${quoteLiteral(subscriptionMark(options.job))}`);
    });
  } catch (error) {
    throw subscriptionError(error, target, options.source);
  }
}

/** What creating or refreshing a subscription fails with, in terms of what to do. */
export function subscriptionError(error: unknown, target: Session, source: ConnectionSpec): unknown {
  const state = sqlstateOf(error);
  const said = redact(errorMessage(error));
  const user = quoteIdent(target.spec.user);
  if (state?.startsWith('08')) {
    return new PgweaveError('target-cannot-reach-source', `the target cannot connect to the source at ${describeConnection(source)}: ${said}`, {
      hint: 'The target\'s own workers make this connection. Give the address, role and password that work from there with --source-for-target postgresql://…; let the target\'s address in with pg_hba.conf and the firewall.', cause: error,
    });
  }
  if (state === '2F003') {
    return new PgweaveError('subscription-needs-password', `the target demands a password in the subscription of a role that is no superuser: ${said}`, { hint: 'Give a password in --source or --source-for-target (a passfile does not count for such a role), and let pg_hba.conf of the source ask for it; or, as a superuser: ALTER SUBSCRIPTION … SET (password_required = false).', cause: error });
  }
  if (state === sqlstate.insufficientPrivilege) {
    const grants = target.serverVersion >= 160_000 ? `GRANT pg_create_subscription TO ${user}; GRANT CREATE ON DATABASE ${quoteIdent(target.spec.database)} TO ${user};` : `Before PostgreSQL 16 only a superuser can (on managed servers: the provider's administrator role, such as rds_superuser).`;
    return new PgweaveError('may-not-subscribe', `role "${target.spec.user}" may not make a subscription on the target: ${said}`, { hint: `On the target: ${grants}`, cause: error });
  }
  if (state === sqlstate.undefinedTable) return new PgweaveError('target-table-missing', `the target lacks a published table: ${said}`, { hint: 'Make it there (pgweave clone does), or leave it out with --ignore-missing.', cause: error });
  if (state === '53400' || state === sqlstate.objectNotInPrerequisiteState) return new PgweaveError('cannot-subscribe', `the target cannot make the subscription: ${said}`, { hint: 'pgweave validate --sync looks at the settings that it needs.', cause: error });
  return error;
}

/** Brings what can be changed of an existing subscription to what is wanted; two-phase stays as it was made before version 18. */
export async function alignSubscription(target: Session, subscription: SubscriptionRow, wanted: { readonly publications: readonly string[]; readonly settings: SubscriptionSettings; readonly conninfo: string; readonly source: ConnectionSpec }): Promise<void> {
  const name = quoteIdent(subscription.name);
  const { settings } = wanted;
  try {
    await target.query(`alter subscription ${name} connection ${quoteLiteral(wanted.conninfo)}`);
    await target.query(`alter subscription ${name} set (${settingsText(settings, target.serverVersion).join(', ')})`);
    if (subscription.publications.length !== wanted.publications.length || wanted.publications.some((p) => !subscription.publications.includes(p))) {
      await target.query(`alter subscription ${name} set publication ${wanted.publications.map(quoteIdent).join(', ')} with (refresh = false)`);
    }
  } catch (error) {
    throw subscriptionError(error, target, wanted.source);
  }
}

/** Takes up tables that were published since, and lets go of those that are no longer. The subscription must be enabled. */
export async function refreshSubscription(target: Session, name: string, copyData: boolean, source: ConnectionSpec): Promise<void> {
  try {
    await target.query(`alter subscription ${quoteIdent(name)} refresh publication with (copy_data = ${copyData})`);
  } catch (error) {
    throw subscriptionError(error, target, source);
  }
}

export async function enableSubscription(target: Session, name: string): Promise<void> {
  await target.query(`alter subscription ${quoteIdent(name)} enable`);
}

/** Removes a subscription and leaves its slot on the other server alone. */
export async function dropSubscription(target: Session, name: string): Promise<void> {
  await target.query(`alter subscription ${quoteIdent(name)} disable`);
  await target.query(`alter subscription ${quoteIdent(name)} set (slot_name = none)`);
  await target.query(`drop subscription ${quoteIdent(name)}`);
}
