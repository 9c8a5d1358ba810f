/** Orders of a metadata server, as they come over the wire, to the parts of the server that follow them. */
import { chunkServerOrderMethods } from '../wire/messages/chunk.ts'
import type { Peer } from '../wire/types.ts'
import type { ChunkStore } from './store/chunk-store.ts'
import type { Joiner } from './repair/joiner.ts'
import type { ReplicaControl } from './store/replica-control.ts'
import type { OverlayMerger } from './repair/overlay-merger.ts'
import type { Repairer } from './repair/repairer.ts'
import type { Verifier } from './repair/verifier.ts'
import { roleOf } from './format/replica-state.ts'
import { wireCodeOfDiskError } from './format/errors.ts'
import { isWireCode } from '../wire/codes.ts'
import { CairnError, codeOf } from '../base/errors.ts'

export interface OrderReceivers {
  readonly store: ChunkStore
  readonly control: ReplicaControl
  readonly joiner: Joiner
  readonly repairer: Repairer
  readonly verifier: Verifier
  readonly merger: OverlayMerger
}

/** Disk errors become wire codes: they would cross as INTERNAL otherwise. */
async function asWireErrors<T>(work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (error) {
    if (isWireCode(codeOf(error))) throw error
    if (!(error instanceof CairnError)) throw error
    throw new CairnError(wireCodeOfDiskError(error), error.message, { cause: error })
  }
}

export function serveOrders(
  peer: Peer,
  { store, control, joiner, repairer, verifier, merger }: OrderReceivers,
): void {
  peer.serve(chunkServerOrderMethods, {
    'replica.create': async ({ replicas }) => {
      const codes = await Promise.all(
        replicas.map((order) => control.create({ ...order, role: roleOf(order.role) })),
      )
      const failed: { chunk: number; code: string }[] = []
      for (const [index, order] of replicas.entries()) {
        const code = codes[index] ?? ''
        if (code !== '') failed.push({ chunk: order.chunk, code })
      }
      return { failed }
    },
    'replica.persist': async ({ replicas }) => {
      const outcomes = await Promise.all(
        replicas.map((order) => control.persist({ ...order, role: roleOf(order.role) })),
      )
      return {
        held: outcomes.map(({ version, code }, index) => {
          const chunk = replicas[index]?.chunk ?? 0
          return code === '' ? { chunk, version } : { chunk, version, code }
        }),
      }
    },
    'replica.delete': async ({ replicas }) => {
      const outcomes = await Promise.all(
        replicas.map(({ chunk, versionMax }) => control.delete(chunk, versionMax).catch(wireCodeOfDiskError)),
      )
      const refusals = replicas
        .map(({ chunk }, index) => ({ chunk, code: outcomes[index] ?? '' }))
        .filter(({ code }) => code !== '')
      return {
        deleted: replicas.filter((_, index) => outcomes[index] === '').map(({ chunk }) => chunk),
        refused: refusals.map(({ chunk }) => chunk),
        codes: refusals,
      }
    },
    'replica.describe': ({ chunk }) => control.describe(chunk),
    'replica.join': (order) => {
      joiner.join(order)
      return {}
    },
    'replica.heal': ({ chunk, version, peers }) => asWireErrors(repairer.heal(chunk, version, peers)),
    'replica.repair': (order) => asWireErrors(repairer.repair(order)),
    'replica.verify': ({ chunk, version, depth }) => asWireErrors(verifier.verify(chunk, version, depth)),
    'replica.records': async ({ chunk, version, region }) => ({
      records: await asWireErrors(verifier.records(chunk, version, region)),
    }),
    'replica.reject': async ({ chunk, version, pages }) => ({
      rejected: await asWireErrors(verifier.reject(chunk, version, pages)),
    }),
    'replica.verified': ({ chunks }) => {
      for (const chunk of chunks) store.verified.verified(chunk)
      return {}
    },
    'replica.promote': async ({ chunk, version }) => {
      await asWireErrors(control.promote(chunk, version))
      return {}
    },
    'replica.close': ({ chunks }) => {
      control.close(chunks)
      return {}
    },
    'replica.merge': ({ replicas }) => ({
      refused: replicas
        .map(({ chunk, parent }) => ({ chunk, code: merger.order(chunk, parent) }))
        .filter(({ code }) => code !== ''),
    }),
    'cs.ping': () => ({ incarnation: store.incarnation, marks: store.log.marks }),
  })
}
