// Proves the hard state file: the contract, and that damage to one slot never takes it back to an older vote.

import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { testHardStateContract } from '../hard-state-contract.ts'
import { NodeHardStateFile } from './hard-state-file.ts'

const directory = () => mkdtemp(join(tmpdir(), 'cairn-hard-state-'))

testHardStateContract('file', async () => {
  const path = await directory()
  return {
    open: () => new NodeHardStateFile(join(path, 'hard-state')),
    remove: () => rm(path, { recursive: true }),
  }
})

test('a damaged slot is passed over, two are an error, and neither goes back to an older vote', async () => {
  const path = await directory()
  try {
    const file = join(path, 'hard-state')
    const writer = new NodeHardStateFile(file)
    await writer.save({ member: 2, term: 4, vote: 1 })
    await writer.save({ member: 2, term: 5, vote: 3 })
    const good = await readFile(file)
    for (const slot of [0, 1]) {
      for (const at of [0, 4, 9, 17, 25, 33, 41]) {
        const bytes = Buffer.from(good)
        bytes[slot * 4096 + at] = (bytes[slot * 4096 + at] ?? 0) ^ 1
        await writeFile(file, bytes)
        assert.deepEqual(await new NodeHardStateFile(file).load(), { member: 2, term: 5, vote: 3 })
      }
    }
    const bytes = Buffer.from(good)
    bytes.fill(0, 30, 40)
    bytes.fill(0, 4096 + 30, 4096 + 40)
    await writeFile(file, bytes)
    await assert.rejects(new NodeHardStateFile(file).load(), { code: 'HARD_STATE_DAMAGED' })
    await assert.rejects(new NodeHardStateFile(file).save({ member: 2, term: 6, vote: 0 }))
    await writeFile(file, '')
    await assert.rejects(new NodeHardStateFile(file).load(), { code: 'HARD_STATE_DAMAGED' })
  } finally {
    await rm(path, { recursive: true })
  }
})
