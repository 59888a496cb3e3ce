import { chmodSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { stringify } from 'yaml';
import type { MeshNode } from './nodes.ts';

export interface ComposeOptions {
  /** Major version of the image; 16 or newer. Default 18. */
  readonly version?: number | undefined;
  /** Path of generated.sql as the compose file sees it. Default `./generated.sql`. */
  readonly schemaPath?: string | undefined;
}

/** Settings of a server of a major version that is a node among `count`, with room for nodes to come. */
export function nodeSettings(count: number, version = 18): Readonly<Record<string, string>> {
  // Slots: one a peer, and one for each node that joins or is copied while another does.
  const edges = Math.max(20, (count - 1) * 2 + 8);
  return {
    wal_level: 'logical', max_replication_slots: String(edges), max_wal_senders: String(edges), max_logical_replication_workers: String(count - 1 + 8), max_worker_processes: String(count - 1 + 16),
    // One origin a subscription; up to version 17 max_replication_slots bounds them too. Source: PostgreSQL 18 release notes.
    ...(version >= 18 ? { max_active_replication_origins: String(edges) } : {}),
    // A statement that writes many rows locks up to 512 buckets of keys.
    max_locks_per_transaction: '256',
    // After an apply error or a lost connection a worker begins again this soon; the default of five seconds is felt.
    wal_retrieve_retry_interval: '500ms',
  };
}

/** The content of docker-compose.yml as an object: one service a node that is not external, and one that keeps house. */
export function composeObject(nodes: readonly MeshNode[], options: ComposeOptions = {}): Record<string, unknown> {
  const version = options.version ?? 18;
  const inside = nodes.filter((n) => !n.external);
  const outside = nodes.filter((n) => n.external);
  const image = `postgres:${version}`;
  const extraHosts = outside.map((n) => `${n.name}:${n.host}`);
  const services: Record<string, unknown> = {};
  for (const node of inside) {
    const donors = nodes.filter((n) => n.name !== node.name).map((n) => (n.external ? `${n.host}:${n.port}` : `${n.name}:5432`));
    services[node.name] = {
      image,
      restart: 'unless-stopped',
      entrypoint: ['bash', '/mesh/entrypoint.sh'],
      command: Object.entries(nodeSettings(nodes.length, version)).flatMap(([name, value]) => ['-c', `${name}=${value}`]),
      environment: {
        POSTGRES_DB: node.db, POSTGRES_USER: node.user, POSTGRES_PASSWORD: passwordReference(node), PGDATA: '/var/lib/postgresql/mesh/data', PGWEAVE_NODE: node.name, PGWEAVE_NODE_ID: String(node.id), PGWEAVE_DONORS: donors.join(' '),
      },
      ports: [`${node.port}:5432`],
      volumes: [`${node.name}_data:/var/lib/postgresql/mesh`, `${options.schemaPath ?? './generated.sql'}:/mesh/generated.sql:ro`, './mesh-entrypoint.sh:/mesh/entrypoint.sh:ro'],
      ...(extraHosts.length > 0 ? { extra_hosts: extraHosts } : {}),
      healthcheck: { test: ['CMD-SHELL', `pg_isready -h 127.0.0.1 -U "$$POSTGRES_USER" -d "$$POSTGRES_DB"`], interval: '5s', timeout: '5s', retries: 30 },
    };
  }
  if (inside.length > 0) {
    services['mesh_maintenance'] = {
      image,
      restart: 'unless-stopped',
      depends_on: Object.fromEntries(inside.map((n) => [n.name, { condition: 'service_healthy' }])),
      environment: Object.fromEntries(inside.map((n) => [`PGWEAVE_${n.name.toUpperCase()}_PASSWORD`, passwordReference(n)])),
      // Heartbeats, collection of tombstones, the journal emptied: what pg_cron would do elsewhere.
      entrypoint: ['bash', '-c', `while sleep 15; do\n${inside.map((n) => `  PGPASSWORD="$$PGWEAVE_${n.name.toUpperCase()}_PASSWORD" psql -qAt -o /dev/null -h ${n.name} -U ${shellQuote(n.user)} -d ${shellQuote(n.db)} -c 'select _mesh.maintain()' || true`).join('\n')}\ndone\n`],
    };
  }
  return { services, volumes: Object.fromEntries(inside.map((n) => [`${n.name}_data`, {}])) };
}

function shellQuote(text: string): string {
  // A dollar sign would be Compose's own.
  return `'${text.replaceAll("'", `'\\''`).replaceAll('$', '$$$$')}'`;
}

/** The environment's password goes before the file's; one that only the environment has is never written down. */
function passwordReference(node: MeshNode): string {
  const variable = `PGWEAVE_${node.name.toUpperCase()}_PASSWORD`;
  return node.passwordInFile === undefined ? `\${${variable}:?the password of ${node.user} on ${node.name}}` : `\${${variable}:-${node.passwordInFile.replaceAll('$', '$$$$')}}`;
}

/** The text of docker-compose.yml: the same nodes give the same text. */
export function composeText(nodes: readonly MeshNode[], options: ComposeOptions = {}): string {
  return `# Written by: pgweave mesh generate. Start with: docker compose up -d
# Then: pgweave mesh setup-replication --host-for-nodes compose
${stringify(composeObject(nodes, options), { lineWidth: 0 })}`;
}

/** Writes docker-compose.yml, and mesh-entrypoint.sh beside it. */
export function writeCompose(nodes: readonly MeshNode[], path: string, options: ComposeOptions = {}): void {
  writeFileSync(path, composeText(nodes, options));
  const script = join(dirname(path), 'mesh-entrypoint.sh');
  writeFileSync(script, entrypointScript);
  chmodSync(script, 0o755);
}

/**
 * Boots a node: an empty data folder is cloned from a donor where `pgweave mesh add-node --method base-backup --prepare` has prepared that, else it is
 * initialised and seeded with generated.sql. A clone first runs without replication workers until it has become a node of its own.
 */
export const entrypointScript = `#!/usr/bin/env bash
# Boots a node of a mesh. Written by: pgweave mesh generate.
set -euo pipefail

as_postgres() { if [ "$(id -u)" = 0 ]; then gosu postgres "$@"; else "$@"; fi; }
on_donor() { PGPASSWORD="$POSTGRES_PASSWORD" PGCONNECT_TIMEOUT=3 psql -qAt -h "\${1%:*}" -p "\${1##*:}" -U "$POSTGRES_USER" -d "$POSTGRES_DB" -c "$2" 2>/dev/null; }
on_self() { as_postgres psql -qAt -h /var/run/postgresql -U "$POSTGRES_USER" -d "$POSTGRES_DB" -c "$1" 2>/dev/null; }

mkdir -p "$PGDATA"
if [ "$(id -u)" = 0 ]; then chown -R postgres:postgres "$(dirname "$PGDATA")" /var/run/postgresql; fi
chmod 700 "$PGDATA"

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  for donor in $PGWEAVE_DONORS; do
    # Only a join that was prepared may clone: a copy taken without slots would lose writes.
    if [ "$(on_donor "$donor" "select 1 from _mesh.node where name = '$PGWEAVE_NODE' and state = 'joining' and ready")" = 1 ]; then
      echo "mesh: cloning $donor"
      PGPASSWORD="$POSTGRES_PASSWORD" as_postgres pg_basebackup -h "\${donor%:*}" -p "\${donor##*:}" -U "$POSTGRES_USER" -D "$PGDATA" -X stream -c fast
      as_postgres touch "$PGDATA/mesh-clone"
      break
    fi
  done
fi

if [ -e "$PGDATA/mesh-clone" ]; then
  # The subscriptions that were cloned must never run: they would take what belongs to the donor.
  as_postgres postgres "$@" -c max_logical_replication_workers=0 &
  server=$!
  trap 'kill -TERM "$server" 2>/dev/null || true' TERM INT
  echo "mesh: waiting for: pgweave mesh add-node $PGWEAVE_NODE --method base-backup --finish"
  until [ "$(on_self 'select _mesh.my_name()')" = "$PGWEAVE_NODE" ] && [ "$(on_self "select count(*) from pg_proc where oid = '_mesh.me()'::regprocedure and provolatile = 'i'")" = 1 ]; do
    kill -0 "$server" 2>/dev/null || { wait "$server"; exit 1; }
    sleep 1
  done
  kill -INT "$server"
  wait "$server" || true
  rm -f "$PGDATA/mesh-clone"
else
  # Runs once, by the image's own entrypoint, when the data folder is initialised.
  mkdir -p /docker-entrypoint-initdb.d
  cat > /docker-entrypoint-initdb.d/10-mesh.sh <<'SEED'
PGOPTIONS="-c pgweave.node_id=$PGWEAVE_NODE_ID -c pgweave.node_name=$PGWEAVE_NODE" psql -v ON_ERROR_STOP=1 -q -1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" -f /mesh/generated.sql
echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
echo 'host replication all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
SEED
fi
exec docker-entrypoint.sh postgres "$@"
`;
