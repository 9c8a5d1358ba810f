/** What every HardStateFile must do, as tests over a factory: the real one and the simulator's model. */
import { deepEqual, equal } from 'node:assert/strict'
import { test } from 'node:test'
import type { HardStateFile } from './hard-state.ts'

/** One empty place; every test gets its own. */
export interface HardStatePlace {
  /** As a new process sees it. */
  open(): HardStateFile
  remove(): Promise<void>
}

const cases: Readonly<Record<string, (place: HardStatePlace) => Promise<void>>> = {
  'a new place holds nothing': async (place) => {
    equal(await place.open().load(), null)
  },

  'what was saved is there after opening again': async (place) => {
    const state = { member: 3, term: 7, vote: 2 }
    await place.open().save(state)
    deepEqual(await place.open().load(), state)
  },

  'the last of many counts, also after loading': async (place) => {
    const file = place.open()
    for (let term = 1; term <= 9; term++) await file.save({ member: 3, term, vote: term % 3 })
    const again = place.open()
    deepEqual(await again.load(), { member: 3, term: 9, vote: 0 })
    await again.save({ member: 3, term: 10, vote: 1 })
    deepEqual(await place.open().load(), { member: 3, term: 10, vote: 1 })
  },

  'large numbers come back': async (place) => {
    const state = { member: 2 ** 40, term: Number.MAX_SAFE_INTEGER, vote: 2 ** 33 + 1 }
    await place.open().save(state)
    deepEqual(await place.open().load(), state)
  },
}

export function testHardStateContract(name: string, makePlace: () => Promise<HardStatePlace>): void {
  for (const [title, body] of Object.entries(cases)) {
    test(`${name}: ${title}`, async () => {
      const place = await makePlace()
      try {
        await body(place)
      } finally {
        await place.remove()
      }
    })
  }
}
