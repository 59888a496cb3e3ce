import type { Relation } from '../pgoutput/messages.ts';

interface Version {
  readonly since: number;
  readonly relation: Relation;
}

/**
 * The descriptions of tables that the source has sent, and which of them held at which point of the log. Transactions remember the version at their beginning
 * instead of a map of their own. The same description sent again (every connection sends all anew) is the same object and no new version.
 */
export class RelationHistory {
  readonly #byOid = new Map<number, Version[]>();
  #version = 0;

  /** The version that holds now. */
  get version(): number {
    return this.#version;
  }

  /** From now on `relation` describes its table. Returns the object to use: an older one where nothing has changed. */
  set(relation: Relation): Relation {
    const versions = this.#byOid.get(relation.oid);
    const last = versions?.at(-1)?.relation;
    if (last && sameRelation(last, relation)) return last;
    const known = this.intern(relation);
    this.#version += 1;
    if (versions) versions.push({ since: this.#version, relation: known });
    else this.#byOid.set(relation.oid, [{ since: this.#version, relation: known }]);
    return known;
  }

  /** The object known for an equal description, else `relation` itself; what holds stays as it is. */
  intern(relation: Relation): Relation {
    return this.#byOid.get(relation.oid)?.findLast((v) => sameRelation(v.relation, relation))?.relation ?? relation;
  }

  /** The description of a table that held at `version`. */
  at(oid: number, version: number): Relation | undefined {
    const versions = this.#byOid.get(oid);
    if (!versions) return undefined;
    for (let i = versions.length - 1; i >= 0; i -= 1) if (versions[i]!.since <= version) return versions[i]!.relation;
    return undefined;
  }

  /** What holds now. */
  current(): Relation[] {
    return [...this.#byOid.values()].map((versions) => versions.at(-1)!.relation);
  }
}

/** Whether two messages describe a table in the same way; the transaction that they came in does not count. */
export function sameRelation(a: Relation, b: Relation): boolean {
  return a.oid === b.oid && a.schema === b.schema && a.name === b.name && a.replicaIdentity === b.replicaIdentity && a.columns.length === b.columns.length &&
    a.columns.every((c, i) => {
      const d = b.columns[i]!;
      return c.name === d.name && c.key === d.key && c.typeOid === d.typeOid && c.typeModifier === d.typeModifier;
    });
}
