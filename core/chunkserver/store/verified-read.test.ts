/** Several readers of a page that rotted: none of them gets it, whichever finds out first (rules R1, P7). */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PAGE_SIZE_BYTES } from '../../base/units.ts'
import { DataOp } from '../../wire/data.ts'
import { chunkPath, pagePosition } from '../format/chunk-layout.ts'
import {
  createOverlay,
  createReplica,
  dataRequest,
  flush,
  makeRig,
  pattern,
  read,
  type Rig,
  send,
  write,
} from '../../testing/chunk-store-rig.ts'

const DISK_MS = 5
const page = (seed: number): Buffer => pattern(seed, PAGE_SIZE_BYTES)

async function rotten(seed: number): Promise<Rig> {
  const rig = await makeRig(seed)
  await createReplica(rig)
  await write(rig, 0, page(1))
  await flush(rig)
  assert.equal(await createOverlay(rig, 2, 1), '')
  await read(rig, 0, PAGE_SIZE_BYTES)
  const file = rig.disk.open(chunkPath(1))
  await rig.clock.settled(new Promise((resolve) => file.write([page(9)], pagePosition(0), resolve)))
  rig.disk.faults.delayMs = DISK_MS
  return rig
}

for (const [what, replica] of [
  ['a flat replica', {}],
  ['an overlay', { chunk: 2, version: 2 }],
] as const) {
  test(`nobody is served a page that another reader of ${what} has just found bad`, async () => {
    for (let skewMs = 0; skewMs <= 2 * DISK_MS; skewMs++) {
      const rig = await rotten(10 + skewMs)
      const request = dataRequest(DataOp.read, { offset: 0, length: PAGE_SIZE_BYTES, ...replica })
      const first = send(rig, request)
      await rig.clock.advance(skewMs)
      const others = [1, 2, 3].map(() => send(rig, request))
      const answers = await rig.clock.settled(Promise.all([first, ...others]))
      const codes = answers.map(({ code }) => code)
      assert.deepEqual(codes, Array(4).fill('BAD_CHECKSUM'), `${skewMs} ms later`)
    }
  })
}
