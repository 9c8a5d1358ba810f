// Proves that calls survive the moment in which a connection is closed and the session has not heard it yet:
// they wait for the next connection, and the process goes on meanwhile.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CairnError } from '../../base/errors.ts'
import { SimulatedClock } from '../../testing/simulation/simulated-clock.ts'
import { CallTable } from './call-table.ts'
import type { MetadataLink } from './transport.ts'

test('a call over a closed connection is sent again over the next one, not over and over', async () => {
  const clock = new SimulatedClock()
  let linkNumber = 1
  const sentOver: number[] = []
  const link = {
    caller: {
      call: (method: string) => {
        sentOver.push(linkNumber)
        assert.ok(sentOver.length < 100, 'sent without end')
        if (linkNumber === 1) return Promise.reject(new CairnError('DISCONNECTED', 'closed'))
        return Promise.resolve({ method })
      },
    },
    close: () => {},
  } as unknown as MetadataLink
  const calls = new CallTable(clock, {
    link: () => link,
    linkNumber: () => linkNumber,
    epoch: () => 0,
    sent: () => {},
    heard: () => {},
    unusable: () => assert.fail('the connection itself says that it is closed'),
  })
  const read = calls.enter('fs.getattr', { inode: 1 }, false, {})
  const mutation = calls.enter('fs.unlink', { parent: 1, name: 'a' }, true, {})
  await clock.settle()
  const before = sentOver.length
  assert.ok(before <= 2)
  // What begins in that moment waits as well.
  const late = calls.enter('fs.getattr', { inode: 2 }, false, {})
  await clock.settle()
  assert.equal(sentOver.length, before)
  linkNumber = 2
  calls.pump()
  await clock.settled(Promise.all([read, mutation, late]))
  assert.deepEqual(sentOver.slice(before), [2, 2, 2])
})
