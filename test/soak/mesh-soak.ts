import { fuzz, fuzzTables } from '../support/mesh-fuzz.ts';
import { MeshLab } from '../support/mesh-lab.ts';
import { addNode } from '../../src/mesh/add-node.ts';
import { removeNode } from '../../src/mesh/remove-node.ts';
import { verifyMesh } from '../../src/mesh/verify.ts';
import type { EmbeddedVersion } from '../../src/servers/binaries.ts';

/**
 * The fuzzer of the mesh for as long as you like: npm run soak -- [minutes] [first seed]
 * Each run makes a mesh of three to five nodes of mixed versions; random transactions, partitions, kills, skewed clocks and collection; then a node joins
 * under load and one leaves, in order or lost. Ends with 1 at the first run in which nodes, metadata and model do not agree; its seed is printed.
 */
const minutes = Number(process.argv[2] ?? 60);
const firstSeed = Number(process.argv[3] ?? Math.floor(Date.now() / 1000) % 1_000_000);
const end = Date.now() + minutes * 60_000;
const say = (line: string) => void process.stdout.write(`${new Date().toISOString()} ${line}\n`);
const versions: readonly EmbeddedVersion[] = [18, 16, 17];

async function run(seed: number): Promise<string[]> {
  await using lab = new MeshLab(fuzzTables());
  const size = 3 + (seed % 3);
  await lab.start(Array.from({ length: size }, (_, i) => versions[(seed + i) % versions.length]!));
  const report = await fuzz(lab, { seed, rounds: 250 });
  await lab.settle(180_000);
  const first = await lab.differences();
  if (first.length > 0) return first;
  await lab.addServer(versions[seed % 3]!, `j${size + 1}`, size + 1);
  const joined = lab.nodes.pop()!;
  await fuzz(lab, { seed: seed + 1, rounds: 60, kills: false, partitions: false }, async () => {
    await addNode([...lab.meshNodes, joined.node], joined.node.name, { sql: lab.sql });
  });
  lab.nodes.push(joined);
  await fuzz(lab, { seed: seed + 2, rounds: 80 });
  await lab.settle(180_000);
  // Before a node leaves, its journal still helps the model.
  const second = await lab.differences();
  if (second.length > 0) return second;
  const lost = seed % 2 === 0;
  if (lost) {
    for (let to = 1; to < lab.nodes.length - 1; to += 1) await lab.link(lab.nodes.length - 1, to, false);
    await fuzz(lab, { seed: seed + 3, rounds: 40, kills: false, partitions: false, skew: false, collect: false });
  }
  const nodes = lab.meshNodes;
  const gone = lab.nodes.pop()!;
  if (lost) await gone.cluster.kill();
  await removeNode(nodes, gone.node.name, { lost });
  await fuzz(lab, { seed: seed + 4, rounds: 40 });
  await lab.settle(180_000);
  const { differences } = await verifyMesh(lab.meshNodes);
  await gone.cluster.destroy();
  say(`seed ${seed}: ${size} nodes, ${report.statements} statements, ${report.kills} kills, one joined, one ${lost ? 'lost' : 'left'}: ${differences.length === 0 ? 'all agree' : 'DIFFERENT'}`);
  return differences.map((d) => `${d.table} ${d.key} ${JSON.stringify(d.held)}`);
}

for (let seed = firstSeed; Date.now() < end; seed += 10) {
  const differences = await run(seed);
  if (differences.length > 0) {
    say(`seed ${seed} FAILED: ${differences.length} differences\n${differences.slice(0, 20).join('\n')}`);
    process.exit(1);
  }
}
say('done: every run agreed');
