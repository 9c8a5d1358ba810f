/** Proves which names come out of TXT records and owner names, whatever a zone holds. */
import assert from 'node:assert/strict'
import test from 'node:test'
import fc from 'fast-check'
import { clusterOfServiceName, NAMES_MAX, namesInTextRecords, SKIPPED_MAX } from './names.ts'

test('all formats of the guide are read', () => {
  const guide = [['cluster1,cluster2', 'cluster3,cluster4'], ['cluster5'], ['cluster6', 'cluster7']]
  const { clusters, skipped } = namesInTextRecords(guide)
  assert.deepEqual(
    clusters,
    [1, 2, 3, 4, 5, 6, 7].map((number) => `cluster${number}`),
  )
  assert.deepEqual(skipped, [])
  assert.deepEqual(namesInTextRecords([[' a , b ', ',,'], ['b']]).clusters, ['a', 'b'])
})

test('what is no name is left out, and said with a bounded list of reasons', () => {
  const { clusters, skipped } = namesInTextRecords([['good', 'bad name', 'x'.repeat(64), '../etc', 'A_b-9']])
  assert.deepEqual(clusters, ['good', 'A_b-9'])
  assert.equal(skipped.length, 3)
  assert.match(skipped[0] ?? '', /"bad name": not the name of a cluster/)
  const many = namesInTextRecords([Array.from({ length: 100 }, (_, index) => `bad ${index}`)])
  assert.equal(many.skipped.length, SKIPPED_MAX + 1)
  assert.equal(many.skipped.at(-1), '84 more')
})

test('hostile records give only legal names, each once, and never too many', () => {
  const text = fc.oneof(fc.string(), fc.string({ unit: 'binary' }), fc.stringMatching(/^[a-z,-]{0,40}$/))
  fc.assert(
    fc.property(fc.array(fc.array(text, { maxLength: 200 }), { maxLength: 50 }), (records) => {
      const { clusters, skipped } = namesInTextRecords(records)
      for (const name of clusters) assert.match(name, /^[A-Za-z0-9_-]{1,63}$/)
      assert.equal(new Set(clusters).size, clusters.length)
      assert.ok(clusters.length <= NAMES_MAX && skipped.length <= SKIPPED_MAX + 1)
      for (const reason of skipped) assert.ok(reason.length < 1000)
    }),
  )
  const flood = Array.from({ length: 3000 }, (_, index) => [`c${index},d${index}`])
  assert.equal(namesInTextRecords(flood).clusters.length, NAMES_MAX)
})

test('the cluster of a service record is what stands between service and domain', () => {
  const of = (owner: string) => clusterOfServiceName(owner, '_pstorage._tcp', 'pcs.test')
  assert.equal(of('_pstorage._tcp.pcs1.pcs.test'), 'pcs1')
  assert.equal(of('_PSTORAGE._TCP.Pcs1.PCS.TEST'), 'Pcs1')
  assert.equal(of('_pstorage._tcp.pcs.test'), undefined)
  assert.equal(of('_http._tcp.pcs1.pcs.test'), undefined)
  assert.equal(of('_pstorage._tcp.pcs1.other.test'), undefined)
  // Not a name, and refused as one by the collector.
  assert.equal(of('_pstorage._tcp.a.b.pcs.test'), 'a.b')
})
