/** Proves the order in which plugins start. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { startOrder } from './order.ts'
import type { OrderNode } from './order.ts'

/** "name<requires,…>provides,…~after,…", each part optional. */
function node(text: string): OrderNode {
  const list = (mark: string): string[] => new RegExp(`\\${mark}([\\w,-]+)`).exec(text)?.[1]?.split(',') ?? []
  return { name: /^\w+/.exec(text)?.[0] ?? '', requires: list('<'), provides: list('>'), after: list('~') }
}

const order = (...nodes: string[]): string =>
  startOrder(nodes.map(node))
    .ordered.map(({ name }) => name)
    .join(' ')

test('without relations the order of the configuration stays', () =>
  assert.equal(order('c', 'a', 'b'), 'c a b'))

test('providers come before those that require them', () =>
  assert.equal(order('c<y', 'b<x>y', 'a>x'), 'a b c'))

test('every provider of a service comes first', () => assert.equal(order('user<x', 'a>x', 'b>x'), 'a b user'))

test('after is honoured for plugins and services, and ignored when it cannot be', () => {
  assert.equal(order('a~b', 'b'), 'b a')
  assert.equal(order('a~x', 'b>x'), 'b a')
  assert.equal(order('a~b', 'b~a'), 'a b')
  assert.equal(order('a>x~b', 'b<x'), 'a b')
  assert.equal(order('a~missing'), 'a')
})

test('a circle of requirements is named, and the others still have their order', () => {
  const { ordered, circles } = startOrder(['a<z>x', 'b<x>y', 'c<y>z', 'free', 'behind<x'].map(node))
  assert.deepEqual(
    ordered.map(({ name }) => name),
    ['free'],
  )
  assert.equal(circles.get('a'), 'a -> c -> b -> a')
  assert.equal(circles.size, 4)
})

test('a plugin that requires what only itself provides is a circle', () => {
  assert.equal(startOrder([node('a<x>x')]).circles.get('a'), 'a -> a')
})
