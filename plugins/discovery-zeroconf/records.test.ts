/** Proves that what is announced is understood again, and that a stranger's records never become more than hints. */
import assert from 'node:assert/strict'
import test from 'node:test'
import fc from 'fast-check'
import {
  answerTo,
  type DnsRecord,
  goodbyeOf,
  missingIn,
  recordsOf,
  SERVICE,
  SERVICES,
  serversIn,
} from './records.ts'

const announcement = { cluster: 'demo', clusterUuid: 'f0-1', host: '0.0.0.0', port: 2510 }
const records = recordsOf(announcement, '10.0.0.1')
const server = { cluster: 'demo', host: '10.0.0.1', port: 2510, priority: 0, weight: 0 }

test('what is announced is found', () => {
  assert.deepEqual(serversIn(records), { servers: [server], skipped: [] })
  const six = recordsOf(
    { ...announcement, cluster: 'x'.repeat(63) },
    'fd00:1111:2222:3333:4444:5555:6666:7777',
  )
  assert.equal(serversIn(six).servers[0]?.host, 'fd00:1111:2222:3333:4444:5555:6666:7777')
  for (const record of six) for (const label of record.name.split('.')) assert.ok(label.length <= 63)
})

test('questions about us are answered with all one needs, others are not', () => {
  const [pointer, service] = records
  assert.ok(pointer !== undefined && service !== undefined)
  const answer = answerTo({ name: '_CAIRN._tcp.local', type: 'PTR' }, records)
  assert.deepEqual(answer?.answers, [pointer])
  assert.deepEqual(serversIn([...(answer?.answers ?? []), ...(answer?.additionals ?? [])]).servers, [server])
  assert.deepEqual(answerTo({ name: service.name, type: 'SRV' }, records)?.answers, [service])
  assert.equal(answerTo({ name: service.name, type: 'ANY' }, records)?.answers.length, 2)
  assert.equal(answerTo({ name: SERVICES, type: 'PTR' }, records)?.answers.length, 1)
  assert.equal(answerTo({ name: SERVICES, type: 'PTR' }, []), undefined)
  assert.equal(answerTo({ name: '_http._tcp.local', type: 'PTR' }, records), undefined)
  assert.ok(goodbyeOf(records).every((record) => 'ttl' in record && record.ttl === 0))
})

test('what is missing is asked for', () => {
  const [pointer, service, text] = records
  assert.ok(pointer !== undefined && service !== undefined && text !== undefined)
  assert.deepEqual(
    missingIn([pointer]).map(({ type }) => type),
    ['SRV', 'TXT'],
  )
  assert.deepEqual(
    missingIn([pointer, service, text]).map(({ type }) => type),
    ['A', 'AAAA'],
  )
  assert.deepEqual(missingIn(records), [])
})

test('services that are of no use are left out with a reason', () => {
  const changed = (type: string, data: unknown): readonly DnsRecord[] =>
    records.map((record) => (record.type === type ? ({ ...record, data } as DnsRecord) : record))
  const reason = (given: readonly DnsRecord[]): string => {
    const { servers, skipped } = serversIn(given)
    assert.deepEqual(servers, [])
    return skipped.join()
  }
  assert.match(reason(changed('TXT', ['cluster=../x'])), /names no cluster/)
  assert.match(reason(changed('TXT', ['cluster', 'cluster=late'])), /names no cluster/)
  assert.match(reason(changed('SRV', { port: 0, target: 'cairn-10-0-0-1.local' })), /base port/)
  assert.match(reason(changed('A', 'fe80::1')), /no address/)
})

test('hostile records give bounded lists of legal names and addresses', () => {
  const name = fc.oneof(fc.constantFrom(SERVICE, `i.${SERVICE}`, 'h.local'), fc.string())
  const record = fc.oneof(
    fc.record({ type: fc.constant('PTR'), name, data: name }),
    fc.record({
      type: fc.constant('SRV'),
      name,
      data: fc.record({
        port: fc.nat(65_535),
        target: name,
        priority: fc.nat(65_535),
        weight: fc.nat(65_535),
      }),
    }),
    fc.record({
      type: fc.constant('TXT'),
      name,
      data: fc.array(
        fc.oneof(
          fc.constant(Buffer.from('cluster=demo')),
          fc.uint8Array().map((bytes) => Buffer.from(bytes)),
        ),
      ),
    }),
    fc.record({
      type: fc.constantFrom('A', 'AAAA'),
      name,
      data: fc.oneof(fc.ipV4(), fc.ipV6(), fc.string()),
    }),
  )
  // Parts of something real among the noise, in any order.
  const mixed = fc
    .tuple(fc.subarray([...records]), fc.array(record, { maxLength: 60 }), fc.boolean())
    .map(([real, wild, isFirst]) => (isFirst ? [...real, ...wild] : [...wild, ...real]))
  let foundCount = 0
  fc.assert(
    fc.property(mixed, (wild) => {
      const { servers, skipped } = serversIn(wild as DnsRecord[])
      foundCount += servers.length
      for (const { cluster, port } of servers) {
        assert.match(cluster, /^[A-Za-z0-9_-]{1,63}$/)
        assert.ok(port >= 1 && port <= 65_534)
      }
      assert.ok(skipped.length <= 16)
      missingIn(wild as DnsRecord[])
    }),
    { numRuns: 500 },
  )
  assert.ok(foundCount > 0, 'no generated set held a whole service: the property proved nothing')
})
