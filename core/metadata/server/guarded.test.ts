/** Nothing leaves a metadata server that is not certainly the master (rule L1). */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Peer } from '../../wire/types.ts'
import { metadataMethods } from '../../wire/messages/metadata.ts'
import { guarded, type Leadership } from './guarded.ts'

type Methods = Pick<typeof metadataMethods, 'session.renew'>

const peer = {} as Peer

function stage(handler: () => unknown) {
  const leadership = { isReady: true, whenReady: () => Promise.resolve(false) }
  const handlers = guarded<Methods>(leadership satisfies Leadership, { 'session.renew': handler as never })
  const renew = async (): Promise<unknown> => await handlers['session.renew']({} as never, peer)
  return { leadership, renew }
}

test('the master answers', async () => {
  const { renew } = stage(() => ({}))
  assert.deepEqual(await renew(), {})
})

test('a deposed master confirms no renewal, and does not even look at it', async () => {
  let isAsked = false
  const { leadership, renew } = stage(() => (isAsked = true))
  leadership.isReady = false
  await assert.rejects(renew(), { code: 'NOT_MASTER' })
  assert.equal(isAsked, false)
})

test('a master that is deposed while it works on a request does not answer it', async () => {
  const { leadership, renew } = stage(() => {
    leadership.isReady = false
    return Promise.resolve({})
  })
  await assert.rejects(renew(), { code: 'NOT_MASTER' })
})

test('without a lease a request waits for the next answers of a majority', async () => {
  const { leadership, renew } = stage(() => ({}))
  leadership.isReady = false
  leadership.whenReady = () => Promise.resolve(true)
  assert.deepEqual(await renew(), {})
})
