import { writeFileSync } from 'node:fs';
import { Command, Option } from 'commander';
import { exitCodes, usageError } from '../core/errors.ts';
import { parseDuration } from '../core/units.ts';
import type { AddNodeOptions } from '../mesh/add-node.ts';
import type { MeshNode } from '../mesh/nodes.ts';
import { print, printJson, runAction, type CommonOptions } from './common.ts';
import { meshWatchCommand } from './mesh-watch.ts';

interface MeshFlags {
  readonly nodes: string;
  readonly json?: boolean;
  readonly hostForNodes?: string;
  readonly node?: string;
}

const defaultTimeout = '10m';

/** `pgweave mesh`: several nodes that all accept writes. */
export function meshCommand(): Command {
  const mesh = new Command('mesh')
    .summary('several nodes that all accept writes, and always agree in the end')
    .description('Several PostgreSQL nodes (16 or newer) that all accept writes, and always agree in the end. nodes.json names the nodes, schema.json the tables; docs/mesh.md tells the whole.')
    .addHelpText('after', '\nExample:\n  pgweave mesh generate && docker compose up -d\n  pgweave mesh setup-replication --host-for-nodes compose\n  pgweave mesh status');
  for (const command of [generateCommand(), adoptCommand(), applyCommand(), setupCommand(), hbaCommand(), statusCommand(), addCommand(), removeCommand(), verifyCommand(), repairCommand(), maintainCommand(), meshWatchCommand()]) mesh.addCommand(command);
  return mesh;
}

/** A subcommand with --nodes, --json and an example. */
function meshSubcommand(name: string, summary: string, example: string): Command {
  return new Command(name).summary(summary).description(`${summary[0]!.toUpperCase()}${summary.slice(1)}.`)
    .option('-n, --nodes <file>', 'the nodes: JSON or YAML', 'nodes.json')
    .option('--json', 'print one JSON document on standard output')
    .addHelpText('after', `\nExample:\n${example.split('\n').map((line) => `  ${line}`).join('\n')}`);
}

const schemaOption = () => new Option('-s, --schema <file>', 'the generated SQL').default('generated.sql');
const tablesOption = () => new Option('--tables <file>', 'the tables: JSON or YAML').default('schema.json');
const addressOption = () => new Option('--host-for-nodes <addresses>', 'where nodes reach one another, if not where you reach them: "compose", one host for all, or name=host[:port],…');
const timeoutOption = () => new Option('--timeout <duration>', 'how long nodes may take to catch up').default(defaultTimeout);

interface ActionContext {
  readonly nodes: MeshNode[];
  readonly json: boolean;
  readonly signal: AbortSignal;
  /** Progress for people: on standard error with --json. */
  readonly step: (text: string) => void;
}

function run(flags: MeshFlags, work: (context: ActionContext) => Promise<number | void>): Promise<void> {
  const common: CommonOptions = { job: 'default', interactive: false, logLevel: 'info', logFormat: 'auto', ...(flags.json === undefined ? {} : { json: flags.json }) };
  return runAction(common, async ({ signal, json }) => {
    const { readNodes, withAddressesForNodes } = await import('../mesh/nodes.ts');
    const nodes = withAddressesForNodes(readNodes(flags.nodes), flags.hostForNodes);
    return await work({ nodes, json, signal, step: (text) => void (json ? process.stderr : process.stdout).write(`  ${text}\n`) });
  });
}

function duration(text: string | undefined): number {
  return parseDuration(text ?? defaultTimeout);
}

function generateCommand(): Command {
  return meshSubcommand('generate', 'write generated.sql and docker-compose.yml from nodes.json and schema.json', 'pgweave mesh generate --nodes nodes.json --tables schema.json')
    .addOption(tablesOption())
    .addOption(schemaOption())
    .option('--compose <file>', 'the compose file; mesh-entrypoint.sh is written beside it', 'docker-compose.yml')
    .option('--postgres-version <n>', 'major version of the images, 16 or newer', '18')
    .option('--max-drift <duration>', 'changes stamped further ahead of a node\'s clock than this are refused by it', '60s')
    .action((flags: MeshFlags & { tables: string; schema: string; compose: string; postgresVersion: string; maxDrift: string }) => run(flags, async ({ nodes, json }) => {
      const { generateSqlFile } = await import('../mesh/generate.ts');
      const { writeCompose } = await import('../mesh/compose.ts');
      const version = Number(flags.postgresVersion);
      if (!Number.isInteger(version) || version < 16) throw usageError(`not a version for a mesh: "${flags.postgresVersion}"`, 'Give 16 or newer.');
      const tables = generateSqlFile(flags.tables, flags.schema, { maxDriftMs: parseDuration(flags.maxDrift) });
      writeCompose(nodes, flags.compose, { version });
      if (json) return printJson({ schema: flags.schema, compose: flags.compose, nodes: nodes.map((n) => n.name), tables: tables.map((t) => `${t.schema}.${t.name}`) });
      print(`${flags.schema}: ${tables.length} ${tables.length === 1 ? 'table' : 'tables'} for ${nodes.length} nodes`, `${flags.compose} and mesh-entrypoint.sh: ${nodes.filter((n) => !n.external).length} services`, 'Next: docker compose up -d, or pgweave mesh apply-schema on servers of your own; then pgweave mesh setup-replication.');
    }));
}

function adoptCommand(): Command {
  const list = (value: string, before: string[] | undefined) => [...(before ?? []), ...value.split(',').map((t) => t.trim()).filter(Boolean)];
  return meshSubcommand('adopt', 'take tables that exist on every node into the mesh', 'pgweave mesh adopt --table public.orders,public.customers --counter orders.views --interleave-sequences')
    .option('--table <names>', 'tables to adopt, separated by commas; default: all of schema public', list)
    .option('--by-column <names>', 'tables whose rows are merged column by column', list)
    .option('--counter <names>', 'columns (table.column) that add up', list)
    .option('--interleave-sequences', 'let each node draw other numbers from the sequences of keys')
    .option('--max-drift <duration>', 'as for generate; of a new mesh', '60s')
    .option('--dry-run', 'print the SQL, change nothing')
    .action((flags: MeshFlags & { table?: string[]; byColumn?: string[]; counter?: string[]; interleaveSequences?: boolean; maxDrift: string; dryRun?: boolean }) => run(flags, async ({ nodes, json, signal }) => {
      const { adoptTables } = await import('../mesh/adopt.ts');
      const result = await adoptTables(nodes, { tables: flags.table, byColumn: flags.byColumn, counters: flags.counter, interleaveSequences: flags.interleaveSequences, maxDriftMs: parseDuration(flags.maxDrift), dryRun: flags.dryRun, signal });
      if (json) return printJson(flags.dryRun ? result : { tables: result.tables, rows: result.rows });
      if (flags.dryRun) return print(result.sql);
      print(`adopted on ${nodes.length} nodes: ${result.tables.join(', ')}`, 'Next: pgweave mesh setup-replication; where several nodes held rows already, pgweave mesh verify.');
    }));
}

function applyCommand(): Command {
  return meshSubcommand('apply-schema', 'apply generated.sql to all nodes, or to one: a transaction a node', 'pgweave mesh apply-schema --schema generated.sql --node london')
    .addOption(schemaOption())
    .option('--node <name>', 'only this node')
    .action((flags: MeshFlags & { schema: string }) => run(flags, async ({ nodes, json, signal, step }) => {
      const { applySchemaToAll } = await import('../mesh/apply-schema.ts');
      const done = await applySchemaToAll(nodes, flags.schema, { node: flags.node, signal, onNode: (name) => step(`${name}  schema applied`) });
      if (json) printJson({ nodes: done });
    }));
}

function setupCommand(): Command {
  return meshSubcommand('setup-replication', 'tie all nodes together, or bring one into the running mesh', 'pgweave mesh setup-replication\npgweave mesh setup-replication --node london      (the same as add-node london)')
    .addOption(schemaOption())
    .addOption(addressOption())
    .addOption(timeoutOption())
    .option('--node <name>', 'bring this node into a mesh that runs already')
    .action((flags: MeshFlags & { schema: string; timeout: string }) => run(flags, async (context) => {
      if (flags.node !== undefined) return await bringIn(context, flags.node, { schema: flags.schema, timeout: flags.timeout, method: 'copy' });
      const { setupReplication } = await import('../mesh/setup-replication.ts');
      const result = await setupReplication(context.nodes, { signal: context.signal, onStep: context.step });
      if (context.json) printJson(result);
      else print(`${result.nodes.length} nodes, ${result.edges.length} edges`);
    }));
}

function hbaCommand(): Command {
  return meshSubcommand('generate-hba', 'print lines for pg_hba.conf that let the nodes in to one another', 'pgweave mesh generate-hba --auth-method scram-sha-256')
    .addOption(new Option('--auth-method <method>', 'how nodes prove who they are').choices(['scram-sha-256', 'md5']).default('scram-sha-256'))
    .addOption(addressOption())
    .action((flags: MeshFlags & { authMethod: 'scram-sha-256' | 'md5' }) => run(flags, async ({ nodes, json }) => {
      const { hbaText } = await import('../mesh/hba.ts');
      const text = hbaText(nodes, flags.authMethod);
      if (json) printJson({ text });
      else process.stdout.write(text);
    }));
}

function statusCommand(): Command {
  return meshSubcommand('status', 'how every node and every edge fares; exit code 3 where something is wrong', 'pgweave mesh status --orphans')
    .option('--orphans', 'also look for rows whose foreign keys lead nowhere (reads whole tables)')
    .action((flags: MeshFlags & { orphans?: boolean }) => run(flags, async ({ nodes, json, signal }) => {
      const { meshStatus } = await import('../mesh/status.ts');
      const { renderMeshStatus } = await import('./render/mesh-status.ts');
      const status = await meshStatus(nodes, { orphans: flags.orphans, signal });
      if (json) printJson(status);
      else print(...renderMeshStatus(status));
      return status.healthy ? exitCodes.done : exitCodes.checkFailed;
    }));
}

interface BringInFlags {
  readonly schema: string;
  readonly timeout: string;
  readonly method: 'copy' | 'base-backup';
  readonly donor?: string;
  readonly prepare?: boolean;
  readonly finish?: boolean;
}

async function bringIn({ nodes, json, signal, step }: ActionContext, name: string, flags: BringInFlags): Promise<void> {
  const { addNode } = await import('../mesh/add-node.ts');
  const { existsSync, readFileSync } = await import('node:fs');
  if (flags.prepare && flags.finish) throw usageError('--prepare and --finish exclude one another', 'Prepare, take the base backup, start the clone, then finish.');
  const options: AddNodeOptions = {
    donor: flags.donor, method: flags.method, phase: flags.finish ? 'finish' : 'prepare', timeoutMs: duration(flags.timeout), signal, onStep: step, sql: existsSync(flags.schema) ? readFileSync(flags.schema, 'utf8') : undefined,
  };
  const result = await addNode(nodes, name, options);
  if (json) return printJson(result);
  print(result.state === 'active' ? `${name} is a member${result.rows === undefined ? '' : ` (${result.rows} rows from ${result.donor})`}` : `${name} is prepared; now:`, ...result.next.map((line, i) => `  ${i + 1}. ${line}`));
}

function addCommand(): Command {
  return meshSubcommand('add-node', 'bring a node into the running mesh, while the others are written to', 'pgweave mesh add-node london --donor mumbai\npgweave mesh add-node london --method base-backup --prepare')
    .argument('[name]', 'the new node, as nodes.json names it')
    .option('--node <name>', 'the same as the argument')
    .option('--donor <name>', 'the member its rows come from (default: the first)')
    .addOption(new Option('--method <method>', 'copy rows, or make it from a base backup of the donor').choices(['copy', 'base-backup']).default('copy'))
    .option('--prepare', 'of base-backup: before the backup is taken')
    .option('--finish', 'of base-backup: once the clone was started without replication workers')
    .addOption(schemaOption())
    .addOption(addressOption())
    .addOption(timeoutOption())
    .action((name: string | undefined, flags: MeshFlags & BringInFlags) => run(flags, (context) => bringIn(context, wanted(name, flags.node), flags)));
}

function wanted(name: string | undefined, flag: string | undefined): string {
  const found = name ?? flag;
  if (found === undefined) throw usageError('no node named', 'Name it: pgweave mesh add-node london');
  return found;
}

function removeCommand(): Command {
  return meshSubcommand('remove-node', 'take a node out of the mesh; its tables stay', 'pgweave mesh remove-node london\npgweave mesh remove-node london --lost      (it is gone for good)')
    .argument('[name]', 'the node')
    .option('--node <name>', 'the same as the argument')
    .option('--lost', 'the node is gone for good: only the others are touched')
    .addOption(timeoutOption())
    .action((name: string | undefined, flags: MeshFlags & { lost?: boolean; timeout: string }) => run(flags, async ({ nodes, json, signal, step }) => {
      const { removeNode } = await import('../mesh/remove-node.ts');
      const result = await removeNode(nodes, wanted(name, flags.node), { lost: flags.lost, timeoutMs: duration(flags.timeout), signal, onStep: step });
      if (json) printJson(result);
      else print(`${result.node} is out of the mesh of ${result.remaining.join(', ')}`, 'Take it out of nodes.json. Its number is not to be used again.');
    }));
}

const tableList = (value: string) => value.split(',').map((t) => t.trim()).filter(Boolean);

function verifyCommand(): Command {
  return meshSubcommand('verify', 'prove that all nodes hold the same rows; exit code 3 where they do not', 'pgweave mesh verify --table public.orders')
    .option('--table <names>', 'only these tables, separated by commas', tableList)
    .option('--out <file>', 'write every difference to a JSON file')
    .addOption(timeoutOption())
    .action((flags: MeshFlags & { table?: string[]; out?: string; timeout: string }) => run(flags, async ({ nodes, json, signal }) => {
      const { verifyMesh } = await import('../mesh/verify.ts');
      const { renderVerify } = await import('./render/mesh-status.ts');
      const result = await verifyMesh(nodes, { tables: flags.table, timeoutMs: duration(flags.timeout), signal });
      if (flags.out) writeFileSync(flags.out, `${JSON.stringify(result.differences, null, 2)}\n`);
      if (json) printJson(result);
      else print(...renderVerify(result, nodes.length));
      return result.equal ? exitCodes.done : exitCodes.checkFailed;
    }));
}

function repairCommand(): Command {
  return meshSubcommand('repair', 'bring together what a loss, or a write past the triggers, left apart', 'pgweave mesh repair --from mumbai')
    .option('--from <node>', 'whose values hold where nodes have different values under one stamp (default: what most have)')
    .option('--table <names>', 'only these tables, separated by commas', tableList)
    .addOption(timeoutOption())
    .action((flags: MeshFlags & { from?: string; table?: string[]; timeout: string }) => run(flags, async ({ nodes, json, signal, step }) => {
      const { repairMesh } = await import('../mesh/repair.ts');
      const { renderVerify } = await import('./render/mesh-status.ts');
      const result = await repairMesh(nodes, { from: flags.from, tables: flags.table, timeoutMs: duration(flags.timeout), signal, onStep: step });
      if (json) printJson(result);
      else print(...(result.before.equal ? ['Nothing to repair.'] : [`${result.before.differences.length} keys differed, ${result.after.differences.length} still do`]), ...renderVerify(result.after, nodes.length));
      return result.after.equal ? exitCodes.done : exitCodes.checkFailed;
    }));
}

function maintainCommand(): Command {
  return meshSubcommand('maintain', 'one round of housekeeping on every node, or one every so often: heartbeat, tombstones, journal', 'pgweave mesh maintain --every 15s')
    .option('--every <duration>', 'go on until stopped')
    .action((flags: MeshFlags & { every?: string }) => run(flags, async ({ nodes, json, signal }) => {
      const { maintainAll } = await import('../mesh/maintain.ts');
      const { sleep } = await import('../core/abort.ts');
      for (;;) {
        const results = await maintainAll(nodes, signal);
        if (json) printJson(results);
        else print(...results.map((r) => `${r.node}  ${r.error ?? `${r.collected} tombstones collected`}`));
        if (flags.every === undefined) return results.every((r) => r.error === undefined) ? exitCodes.done : exitCodes.failed;
        await sleep(parseDuration(flags.every), signal);
      }
    }));
}
