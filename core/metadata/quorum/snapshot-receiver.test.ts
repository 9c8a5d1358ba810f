// Proves that nothing is written over a copy of the store from the moment in which consensus has taken it until
// it is the store: a part of another one would be installed instead.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Message } from '../../raft/index.ts'
import {
  SimulatedHardState,
  SimulatedHardStateContents,
} from '../../testing/simulation/simulated-hard-state.ts'
import { SimulatedSnapshotFiles } from '../../testing/simulation/simulated-snapshot-files.ts'
import { SimulatedStore, SimulatedStoreContents } from '../../testing/simulation/simulated-store.ts'
import type { Peer } from '../../wire/types.ts'
import type { StateMachine } from '../state/apply.ts'
import { createStateMachine } from '../state/machine.ts'
import { RaftLog } from './raft-log.ts'
import { SnapshotReceiver } from './snapshot-receiver.ts'
import { stillClock, testLogOptions } from './test-log.ts'

const clock = stillClock((callback) => void setImmediate(callback))

const peer = {} as Peer

test('no piece is taken while a copy is being installed', async () => {
  const contents = new SimulatedStoreContents()
  const files = new SimulatedSnapshotFiles(contents, new Map(), () => new SimulatedStore(contents))
  const written: number[] = []
  const watched = Object.assign(files, {
    write: (offset: number) => {
      written.push(offset)
      return Promise.resolve()
    },
  })
  let isInstalling = false
  const receiver = new SnapshotReceiver(watched, () => isInstalling)
  const first = { offset: 0, bytes: Buffer.from('one') }
  await receiver.piece(first, peer)
  isInstalling = true
  await assert.rejects(receiver.piece({ offset: 3, bytes: Buffer.from('two') }, peer), { code: 'OVERLOADED' })
  await assert.rejects(receiver.piece(first, {} as Peer), { code: 'OVERLOADED' })
  assert.deepEqual(written, [0])
  isInstalling = false
  await receiver.piece(first, peer)
  assert.deepEqual(written, [0, 0])
})

test('a copy is being installed from the message that brings it on, to the end of this log', async () => {
  const hardState = new SimulatedHardStateContents()
  hardState.state = { member: 2, term: 0, vote: 0 }
  const machine = createStateMachine() as unknown as StateMachine
  const store = new SimulatedStore(new SimulatedStoreContents())
  const options = testLogOptions({ store, hardState: new SimulatedHardState(hardState), machine, clock })
  const installing = Promise.withResolvers<void>()
  const events = { ...options.events, install: () => installing.resolve() }
  const log = new RaftLog({ ...options, isFounder: false, events })
  await log.start()
  assert.equal(log.isInstalling, false)
  const snapshot = { index: 7, term: 3, configuration: { voters: [1], learners: [2] } }
  const message: Message = {
    ...{ type: 'snapshot', from: 1, to: 2, term: 3, tick: 1, leaseEpoch: 1 },
    snapshot,
  }
  log.step(message)
  assert.equal(log.isInstalling, true, 'before anything else can arrive')
  await installing.promise
  await log.retire()
  assert.equal(log.isInstalling, true)
})
