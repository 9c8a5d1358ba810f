// Proves that nobody who has met a newer quorum of a cluster follows an older one back, and that metadata servers
// let each other in to find out which of them is the older.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { acceptHello, acceptWelcome, encodeHello, encodeWelcome, type LocalSide } from './hello.ts'

function side(role: string, generation?: number): LocalSide {
  const known = generation === undefined ? {} : { generation }
  const identity = { role, clusterName: 'demo', clusterUuid: 'abc', ...known, session: 0, name: role }
  return { identity, versions: [1], features: 0 }
}

/** Both directions of one connection. */
function meet(dialling: LocalSide, accepting: LocalSide): void {
  acceptHello(encodeHello(dialling), accepting)
  acceptWelcome(encodeWelcome(accepting, 1), dialling)
}

const replaced = { code: 'WRONG_CLUSTER', message: /was replaced by another/ }

test('a metadata server of an older generation serves nobody who has met a newer one, whoever notices', () => {
  const old = side('mds', 5)
  for (const role of ['client', 'admin', 'cs']) {
    const other = side(role, 9)
    assert.throws(() => acceptHello(encodeHello(other), old), replaced)
    assert.throws(() => acceptWelcome(encodeWelcome(old, 1), other), replaced)
    meet(side(role, 5), old)
    meet(side(role, 4), old)
    meet(side(role), old)
    meet(side(role, 9), side('mds'))
  }
})

test('metadata servers of two generations get through the handshake: who is older must be sure of it', () => {
  meet(side('mds', 5), side('mds', 9))
  meet(side('mds', 9), side('mds', 5))
})

test('a chunk server has no generation to be compared with', () => {
  meet(side('client', 9), side('cs'))
})
