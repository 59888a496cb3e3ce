/** `waiting`: not reached yet; `setting-up`: schema, publication, subscription; `syncing`: the initial copy; `streaming`; `resync-needed`: its slot was given up, rows are to be copied anew; `failing`: see the error. */
export type TargetState = 'waiting' | 'setting-up' | 'syncing' | 'streaming' | 'resync-needed' | 'failing';

export interface TargetHealth {
  readonly name: string;
  readonly engine: string;
  /** As `server_version` prints it; null until a round came through. */
  readonly version: string | null;
  readonly state: TargetState;
  readonly stateSince: string;
  readonly healthy: boolean;
  /** Whether the target's server answered; null where not known. */
  readonly reachable: boolean | null;
  /** Something reads the target's slot. */
  readonly connected: boolean;
  readonly tables: number;
  readonly tablesReady: number;
  readonly lagBytes: number | null;
  readonly lagMs: number | null;
  /** Changes applied a second, over the last ten; null where PostgreSQL applies them. */
  readonly rowsPerSecond: number | null;
  readonly retainedBytes: number | null;
  readonly attempts: number;
  readonly lastError: { readonly code: string; readonly message: string; readonly hint: string | null; readonly at: string } | null;
  readonly lastSuccessAt: string | null;
}

/** How the publisher's log on NATS is. */
export interface LogHealth {
  readonly stream: string;
  readonly servers: readonly string[];
  /** The source is read, and NATS stores what it gives. */
  readonly publishing: boolean;
  readonly natsConnected: boolean;
  /** WAL between what is stored and now; null where not known. */
  readonly lagBytes: number | null;
  /** Received and not stored yet. */
  readonly waitingBytes: number | null;
  readonly lastError: TargetHealth['lastError'];
}

/** What `/health` answers. */
export interface FanoutHealth {
  readonly status: 'healthy' | 'unhealthy';
  readonly ready: boolean;
  readonly startedAt: string;
  readonly config: { readonly path: string; readonly loadedAt: string; /** Why the newest version of the file is not in use; null where it is. */ readonly error: string | null };
  readonly source: { readonly address: string; readonly reachable: boolean; readonly error: string | null; readonly retainedBytes: number | null; readonly budgetBytes: number | null };
  readonly targets: readonly TargetHealth[];
  /** Of a publisher alone. */
  readonly log?: LogHealth;
}
