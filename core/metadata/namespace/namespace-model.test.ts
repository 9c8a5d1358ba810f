// Proves the namespace against a dumb model: trees of plain objects, where every rule is written down again in
// the simplest way. Random command sequences must give the same answers and the same tree, must leave the
// invariants of the state intact, and must survive a restart.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { stateDigest } from '../state/state.ts'
import { NamespaceBench } from './namespace-bench.ts'
import { readDirectory } from './read.ts'

interface ModelNode {
  /** Undefined: not a directory. */
  children?: Map<string, ModelNode>
  up?: ModelNode | undefined
  names: number
}

const directoryNode = (up?: ModelNode): ModelNode => ({ children: new Map(), up, names: 1 })

class Model {
  root = directoryNode()

  find(path: readonly string[]): ModelNode | undefined {
    let node: ModelNode | undefined = this.root
    for (const name of path) node = node?.children?.get(name)
    return node
  }

  create(parent: ModelNode, name: string, isDirectory: boolean): string {
    if (parent.children === undefined) return 'ENOTDIR'
    if (parent.children.has(name)) return 'EEXIST'
    parent.children.set(name, isDirectory ? directoryNode(parent) : { names: 1 })
    return 'ok'
  }

  link(node: ModelNode, parent: ModelNode, name: string): string {
    if (node.children !== undefined) return 'EPERM'
    if (parent.children === undefined) return 'ENOTDIR'
    if (parent.children.has(name)) return 'EEXIST'
    parent.children.set(name, node)
    node.names += 1
    return 'ok'
  }

  remove(parent: ModelNode, name: string, isDirectory: boolean): string {
    if (parent.children === undefined) return 'ENOTDIR'
    const node = parent.children.get(name)
    if (node === undefined) return 'ENOENT'
    if (isDirectory && node.children === undefined) return 'ENOTDIR'
    if (!isDirectory && node.children !== undefined) return 'EISDIR'
    if (node.children !== undefined && node.children.size > 0) return 'ENOTEMPTY'
    parent.children.delete(name)
    node.names -= 1
    return 'ok'
  }

  rename(from: ModelNode, name: string, to: ModelNode, newName: string, mode: string): string {
    if (from.children === undefined || to.children === undefined) return 'ENOTDIR'
    const node = from.children.get(name)
    const target = to.children.get(newName)
    if (node === undefined) return 'ENOENT'
    if (mode === 'no-replace' && target !== undefined) return 'EEXIST'
    if (mode === 'exchange' && target === undefined) return 'ENOENT'
    if (isBelow(to, node)) return 'EINVAL'
    if (mode === 'exchange' && target !== undefined) {
      if (isBelow(from, target)) return 'EINVAL'
      from.children.set(name, target)
      to.children.set(newName, node)
      if (target.children !== undefined) target.up = from
    } else {
      if (target === node) return 'ok'
      if (target !== undefined) {
        if (node.children !== undefined && target.children === undefined) return 'ENOTDIR'
        if (node.children === undefined && target.children !== undefined) return 'EISDIR'
        if (target.children !== undefined && target.children.size > 0) return 'ENOTEMPTY'
        target.names -= 1
      }
      from.children.delete(name)
      to.children.set(newName, node)
    }
    if (node.children !== undefined) node.up = to
    return 'ok'
  }
}

function isBelow(node: ModelNode, top: ModelNode): boolean {
  for (let current: ModelNode | undefined = node; current !== undefined; current = current.up) {
    if (current === top) return true
  }
  return false
}

const name = fc.constantFrom('a', 'b', 'c')
const path = fc.array(name, { maxLength: 3 })
const mode = fc.constantFrom('replace' as const, 'no-replace' as const, 'exchange' as const)
const step = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant('make' as const), path, name, isDirectory: fc.boolean() }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('link' as const), path, to: path, name }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('remove' as const), path, name, isDirectory: fc.boolean() }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant('rename' as const), path, name, to: path, newName: name, mode }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('collect' as const) }) },
)
type Step = typeof step extends fc.Arbitrary<infer Value> ? Value : never

/** Does it on both; undefined when a path leads nowhere in the model. */
function takeStep(bench: NamespaceBench, model: Model, action: Step): [string, string] | undefined {
  if (action.do === 'collect') {
    bench.apply({ type: 'file.collect', inodes: [...bench.state.orphans] })
    return undefined
  }
  const node = model.find(action.path)
  if (node === undefined) return undefined
  const { inode } = bench.at(action.path.join('/'))
  const codeOf = (result: object) => ('error' in result ? String(result.error) : 'ok')
  switch (action.do) {
    case 'make': {
      const made = action.isDirectory ? bench.node(action.name, inode) : bench.create(action.name, inode)
      return [codeOf(made), model.create(node, action.name, action.isDirectory)]
    }
    case 'remove': {
      const removed = action.isDirectory ? bench.rmdir(action.name, inode) : bench.unlink(action.name, inode)
      return [codeOf(removed), model.remove(node, action.name, action.isDirectory)]
    }
    case 'link': {
      const to = model.find(action.to)
      if (to === undefined) return undefined
      const linked = bench.link(inode, action.name, bench.at(action.to.join('/')).inode)
      return [codeOf(linked), model.link(node, to, action.name)]
    }
    case 'rename': {
      const to = model.find(action.to)
      if (to === undefined) return undefined
      const newParent = bench.at(action.to.join('/')).inode
      const renamed = bench.rename(action.name, action.newName, {
        parent: inode,
        newParent,
        mode: action.mode,
      })
      return [codeOf(renamed), model.rename(node, action.name, to, action.newName, action.mode)]
    }
  }
}

/** The whole tree is the same, and counts and '..' say what the tree says. */
function compareTrees(bench: NamespaceBench, model: Model): void {
  const reached = new Map<number, ModelNode>()
  const pending: [number, ModelNode, number][] = [[1, model.root, 1]]
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const [inode, node, parent] = next
    const row = bench.row(inode)
    assert.equal(row.type === 'directory', node.children !== undefined)
    assert.equal(reached.get(inode) ?? node, node, 'one inode is one node')
    reached.set(inode, node)
    if (node.children === undefined) {
      assert.equal(row.links, node.names)
      continue
    }
    assert.equal(row.parent, parent)
    const children = [...node.children.values()]
    assert.equal(row.links, 2 + children.filter((child) => child.children !== undefined).length)
    const listed = readDirectory(bench.state, { inode, cookie: 0, limit: 100, plus: false })
    assert.ok('ok' in listed)
    assert.deepEqual(
      listed.ok.entries.map((entry) => entry.name).toSorted(),
      [...node.children.keys()].toSorted(),
    )
    for (const entry of listed.ok.entries) {
      const child = node.children.get(entry.name)
      assert.ok(child !== undefined)
      pending.push([entry.inode, child, inode])
    }
  }
  for (const { inode } of bench.state.inodes.values()) {
    assert.equal(reached.has(inode), !bench.state.orphans.has(inode), `inode ${inode} is lost`)
  }
}

test('random commands give the answers and the tree of the model', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60, size: 'max' }), (steps) => {
      const bench = new NamespaceBench()
      const model = new Model()
      for (const action of steps) {
        const codes = takeStep(bench, model, action)
        if (codes !== undefined) assert.equal(codes[0], codes[1], JSON.stringify(action))
      }
      compareTrees(bench, model)
      const digest = stateDigest(bench.state)
      const copy = bench.reloaded()
      assert.equal(stateDigest(copy.state), digest)
      compareTrees(copy, model)
    }),
    { numRuns: 400 },
  )
})
