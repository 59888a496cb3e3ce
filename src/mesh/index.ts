/** The mesh as a library: `import { mesh } from 'pgweave'`. */
export { parseNodes, readNodes, nodeNamed, withAddressesForNodes, type MeshNode, type NodesInput } from './nodes.ts';
export { parseSchema, readSchema, type InputTable, type SchemaInput } from './schema-input.ts';
export { generateSql, generateSqlFile, type GenerateOptions } from './generate.ts';
export { composeObject, composeText, writeCompose, nodeSettings, type ComposeOptions } from './compose.ts';
export { hbaText, authMethods, type AuthMethod } from './hba.ts';
export { openNode, ping, NodeSessions } from './connect.ts';
export { applySchema, applySchemaFromFile, applySchemaToAll, type ApplyOptions } from './apply-schema.ts';
export { setupReplication, type SetupOptions, type SetupResult } from './setup-replication.ts';
export { addNode, type AddNodeOptions, type AddNodeResult } from './add-node.ts';
export { removeNode, type RemoveNodeOptions, type RemoveNodeResult } from './remove-node.ts';
export { meshStatus, meshHealth, healthIssues, type MeshStatus, type MeshIssue, type NodeStatus, type StatusOptions } from './status.ts';
export { verifyMesh, type KeyDifference, type VerifyOptions, type VerifyResult } from './verify.ts';
export { repairMesh, type RepairOptions, type RepairResult } from './repair.ts';
export { adoptTables, type AdoptOptions, type AdoptResult } from './adopt.ts';
export { maintainAll, type MaintainResult } from './maintain.ts';
