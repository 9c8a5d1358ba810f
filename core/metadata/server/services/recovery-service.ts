/**
 * Ends the recovery of metadata that have begun anew: shows what the chunk servers hold, and makes that the state
 * of every chunk when an administrator says so (chunks/renewal.ts). Until then this member serves nobody else.
 */
import type { adminMethods } from '../../../wire/messages/metadata.ts'
import type { ParamsOf, ResultOf } from '../../../wire/messages/method.ts'
import { ALARM_KEY, generationOf, UNKNOWN_KEPT_KEY } from '../../chunks/administration.ts'
import type { EventRecorder } from '../../control/servers/event-recorder.ts'
import type { Master } from '../../control/servers/master.ts'
import type { ReturnedReplicas } from '../../control/replication/returned-replicas.ts'
import { wireError } from '../../errors.ts'
import { valueOf } from '../../state/result.ts'

type AdminMethods = typeof adminMethods
type Status = ResultOf<AdminMethods, 'mds.recovery'>

const ADOPTIONS_PER_COMMAND = 1_024

export interface RecoveryServiceParts {
  readonly master: Master
  readonly events: EventRecorder
  readonly returned: ReturnedReplicas | null
}

export class RecoveryService {
  readonly #parts: RecoveryServiceParts
  #isEnding = false

  constructor(parts: RecoveryServiceParts) {
    this.#parts = parts
  }

  async status(): Promise<Status> {
    const { master, returned } = this.#parts
    const generation = generationOf(master.state)
    const keepsUnknown = master.state.config.has(UNKNOWN_KEPT_KEY)
    const alarm = master.state.config.get(ALARM_KEY)
    if (returned === null) {
      const said = alarm === undefined ? {} : { alarm: String(alarm) }
      return { isWaiting: false, generation, keepsUnknown, missingServers: [], ...said }
    }
    const summary = await returned.summary()
    return { isWaiting: true, generation, keepsUnknown, missingServers: returned.missingServers(), summary }
  }

  async end({ withoutMissing }: ParamsOf<AdminMethods, 'mds.recover'>): Promise<Record<string, never>> {
    const { master, returned, events } = this.#parts
    if (returned === null) throw wireError('REFUSED', 'the cluster is not being recovered')
    if (this.#isEnding) throw wireError('TRY_AGAIN', 'the recovery is being ended already')
    const missing = returned.missingServers()
    if (missing.length > 0 && !withoutMissing)
      throw wireError('REFUSED', `${missing.map((id) => `CS#${id}`).join(', ')} have not reported`)
    this.#isEnding = true
    try {
      await returned.adoptions(ADOPTIONS_PER_COMMAND, async (chunks) => {
        valueOf(await master.log.propose({ type: 'chunk.adopt', chunks }))
      })
      const without = missing.length === 0 ? '' : ` without ${missing.map((id) => `CS#${id}`).join(', ')}`
      events.record('MDS', 'warn', 'RECOVERY_ENDED', `An administrator ended the recovery${without}`)
      valueOf(await master.log.propose({ type: 'recovery.end', versionMax: returned.versionMax }))
      return {}
    } finally {
      this.#isEnding = false
    }
  }

  /** Rule G1: only an administrator ends the alarm. */
  async acknowledge(): Promise<Record<string, never>> {
    const { master, events } = this.#parts
    valueOf(await master.log.propose({ type: 'recovery.acknowledge' }))
    const message = 'An administrator acknowledged that the metadata are behind: replicas are deleted again'
    events.record('MDS', 'warn', 'ALARM_ACKNOWLEDGED', message)
    return {}
  }

  async discardUnknown(): Promise<Record<string, never>> {
    const { master, events } = this.#parts
    valueOf(await master.log.propose({ type: 'recovery.discard' }))
    const message = 'An administrator allowed the deletion of replicas that the metadata do not know'
    events.record('MDS', 'warn', 'UNKNOWN_DISCARDED', message)
    return {}
  }
}
