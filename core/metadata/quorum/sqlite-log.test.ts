// Proves log and state on the real store: a start after a clean end, and from a copy taken in the middle, as
// a crash would leave it, both give the state that callers heard of.

import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { NodeClock } from '../../platform/node/clock.ts'
import { SqliteStore } from '../../platform/node/sqlite-store.ts'
import { NamespaceBench } from '../namespace/namespace-bench.ts'
import { stateDigest } from '../state/state.ts'
import {
  SimulatedHardState,
  SimulatedHardStateContents,
} from '../../testing/simulation/simulated-hard-state.ts'
import { testLog } from './test-log.ts'

async function startMember(path: string, hardState = new SimulatedHardStateContents()) {
  const bench = new NamespaceBench({ empty: true, withSessions: true })
  const store = await SqliteStore.open(path)
  const { machine } = bench
  const { log, recovered } = await testLog({
    store,
    hardState: new SimulatedHardState(hardState),
    machine,
    clock: new NodeClock(),
  })
  return { bench, log, store, recovered, hardState }
}

test('state on SQLite survives a clean end and a crash', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'cairn-log-'))
  try {
    const first = await startMember(join(directory, 'main.sqlite'))
    await first.log.propose({ type: 'session.open', name: 'n', host: 'h', kind: 'k', secret: 's' })
    const create = (sequence: number) =>
      first.log.propose({
        type: 'fs.create',
        session: 1,
        mutation: { sequence, acknowledgedBelow: Math.max(0, sequence - 100) },
        parent: 1,
        // Names that JSON, SQL and LIKE treat specially.
        name: `${sequence} 'quo"te\\ %_\n\t漢😀`,
        mode: 0o600,
        uid: 1,
        gid: 2,
        exclusive: true,
        lease: sequence % 10 === 0,
      })
    for (let sequence = 1; sequence <= 500; sequence += 50) {
      await Promise.all(Array.from({ length: 50 }, (_, count) => create(sequence + count)))
    }
    const digest = stateDigest(first.bench.state)
    await first.store.snapshot(join(directory, 'crashed.sqlite'))
    await first.log.close()

    const clean = await startMember(join(directory, 'main.sqlite'), first.hardState)
    assert.equal(stateDigest(clean.bench.state), digest)
    assert.equal(clean.recovered.unappliedCount, 0, 'a clean end leaves nothing to replay')
    const crashed = await startMember(join(directory, 'crashed.sqlite'), first.hardState)
    assert.equal(stateDigest(crashed.bench.state), digest)
    assert.ok(crashed.recovered.unappliedCount > 0, 'the last batch is behind the rows')
    assert.equal(crashed.bench.state.leaseByInode.size, 50)
    await clean.log.close()
    await crashed.log.close()
  } finally {
    await rm(directory, { recursive: true })
  }
})
