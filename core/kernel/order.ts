/**
 * The order in which plugins start: whoever provides a service comes before those that require it, `after` is
 * honoured where it contradicts nothing, and otherwise the order of the configuration stays. Pure.
 */

export interface OrderNode {
  readonly name: string
  readonly requires: readonly string[]
  readonly provides: readonly string[]
  readonly after: readonly string[]
}

export interface Order<Node extends OrderNode> {
  readonly ordered: readonly Node[]
  /** Plugins that can never start because they require each other; each with the circle, "a -> b -> a". */
  readonly circles: ReadonlyMap<string, string>
}

export function startOrder<Node extends OrderNode>(nodes: readonly Node[]): Order<Node> {
  const hard = new Map(nodes.map((node) => [node, nodes.filter((other) => isProvider(other, node.requires))]))
  const soft = new Map(
    nodes.map((node) => [
      node,
      nodes.filter(
        (other) => other !== node && (node.after.includes(other.name) || isProvider(other, node.after)),
      ),
    ]),
  )
  const ordered: Node[] = []
  const circles = new Map<string, string>()
  const left = new Set(nodes)
  const isFree = (node: Node, edges: Map<Node, Node[]>): boolean =>
    (edges.get(node) ?? []).every((before) => !left.has(before))
  while (left.size > 0) {
    const candidates = [...left].filter((node) => isFree(node, hard))
    const next = candidates.find((node) => isFree(node, soft)) ?? candidates[0]
    if (next !== undefined) {
      left.delete(next)
      ordered.push(next)
      continue
    }
    for (const node of left) circles.set(node.name, describeCircle(node, hard, left))
    break
  }
  return { ordered, circles }
}

function isProvider(node: OrderNode, services: readonly string[]): boolean {
  return node.provides.some((service) => services.includes(service))
}

/** Walks along requirements until a plugin comes up twice. */
function describeCircle<Node extends OrderNode>(
  start: Node,
  hard: ReadonlyMap<Node, readonly Node[]>,
  left: ReadonlySet<Node>,
): string {
  const path: Node[] = []
  let node: Node | undefined = start
  while (node !== undefined && !path.includes(node)) {
    path.push(node)
    node = hard.get(node)?.find((before) => left.has(before))
  }
  return [...path, ...(node === undefined ? [] : [node])].map(({ name }) => name).join(' -> ')
}
