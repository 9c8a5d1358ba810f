/**
 * Proves the promises of consensus under faults over many seeds, and proves that the proof bites: each bug
 * that is planted is found within a stated number of seeds. `test/simulation/raft-main.ts` runs more.
 */
import { deepEqual, equal, ok } from 'node:assert/strict'
import { test } from 'node:test'
import type { RaftFaults } from '../index.ts'
import { type Property, Violation } from './checker.ts'
import { simulate, type SimulationSummary } from './simulation.ts'

const seedCount = 200

test(`${seedCount} seeds of trouble break no promise, and each group works again when the world heals`, () => {
  const totals = {
    leaders: 0,
    committed: 0,
    leaseReads: 0,
    indexReads: 0,
    crashes: 0,
    snapshots: 0,
    changes: 0,
    transfers: 0,
  }
  for (let seed = 1; seed <= seedCount; seed++) {
    const summary = simulated(seed)
    totals.leaders += summary.leaderCount
    totals.committed += summary.committedCount
    totals.leaseReads += summary.leaseReadCount
    totals.indexReads += summary.indexReadCount
    totals.crashes += summary.crashCount
    totals.snapshots += summary.snapshotCount
    totals.changes += summary.configurationCount
    totals.transfers += summary.transferCount
  }
  // The simulation has visited what it claims to test.
  ok(totals.leaders > 5 * seedCount, JSON.stringify(totals))
  ok(totals.committed > 50 * seedCount && totals.crashes > 10 * seedCount, JSON.stringify(totals))
  ok(totals.leaseReads > 1000 * seedCount && totals.indexReads > 10 * seedCount, JSON.stringify(totals))
  ok(totals.snapshots > seedCount && totals.transfers > seedCount / 2, JSON.stringify(totals))
  ok(totals.changes > seedCount / 2, JSON.stringify(totals))
})

function simulated(seed: number): SimulationSummary {
  try {
    return simulate({ seed })
  } catch (error) {
    throw new Error(`seed ${seed}`, { cause: error })
  }
}

test('a seed gives the same history every time', () => {
  deepEqual(simulate({ seed: 7 }), simulate({ seed: 7 }))
})

interface Planted {
  readonly faults: RaftFaults
  /** For what needs a rare chain of events. */
  readonly troubleTicks?: number
  /** A bound with room to spare; the run stops at the first find. */
  readonly seedCountMax: number
  readonly properties: readonly Property[]
}

const divergence: readonly Property[] = [
  'election safety',
  'log matching',
  'leader completeness',
  'state machine safety',
  'member failed',
]

const planted: Readonly<Record<string, Planted>> = {
  'votes twice in a term': { faults: { voteTwice: true }, seedCountMax: 50, properties: divergence },
  'forgets term and vote in a restart': {
    faults: { forgetHardState: true },
    seedCountMax: 100,
    properties: divergence,
  },
  'commits entries of older terms by counting': {
    faults: { skipCurrentTermRule: true },
    troubleTicks: 1200,
    seedCountMax: 300,
    properties: ['leader completeness', 'state machine safety', 'member failed'],
  },
  'answers reads without the lease': {
    faults: { readWithoutLease: true },
    seedCountMax: 200,
    properties: ['lease read'],
  },
  'applies out of order': { faults: { applyOutOfOrder: true }, seedCountMax: 5, properties: ['apply order'] },
  'keeps the lease while it hands over (rule L3)': {
    faults: { keepLeaseInTransfer: true },
    seedCountMax: 300,
    properties: ['lease read'],
  },
  'votes at once after a restart (rule L3)': {
    faults: { voteAfterRestart: true },
    seedCountMax: 100,
    properties: ['lease read'],
  },
  'acknowledges entries before they are durable': {
    faults: { acknowledgeEarly: true },
    seedCountMax: 50,
    properties: divergence,
  },
}

for (const [bug, { faults, troubleTicks = 400, seedCountMax, properties }] of Object.entries(planted))
  test(`a member that ${bug} is found within ${seedCountMax} seeds`, () => {
    for (let seed = 1; seed <= seedCountMax; seed++) {
      try {
        simulate({ seed, faults, troubleTicks })
      } catch (error) {
        if (!(error instanceof Violation)) throw error
        ok(properties.includes(error.property), error.message)
        return
      }
    }
    equal('found', 'not found')
  })
