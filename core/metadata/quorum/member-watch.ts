/** Says in the event log when a metadata server falls silent and when it is back. Of the master only. */
import type { MemberId } from '../../raft/index.ts'
import type { Master } from '../control/master.ts'
import type { EventSeverity } from '../state/rows.ts'
import type { MembersView } from './members-view.ts'

const STEP_MS = 1_000
/** A new master gives everybody time to answer. */
const FIRST_MS = 5_000

export interface MemberWatchParts {
  readonly master: Master
  readonly members: MembersView
  readonly event: (severity: EventSeverity, code: string, message: string) => void
}

export class MemberWatch {
  readonly #parts: MemberWatchParts
  readonly #silent = new Set<MemberId>()

  constructor(parts: MemberWatchParts) {
    this.#parts = parts
  }

  start(): void {
    const { master } = this.#parts
    master.after(FIRST_MS, () => master.every(STEP_MS, () => this.#look()))
  }

  #look(): void {
    const { members, event } = this.#parts
    const present = members.list()
    for (const id of this.#silent) if (!present.some((member) => member.id === id)) this.#silent.delete(id)
    for (const { id, address, status } of present) {
      const isSilent = status === 'inactive'
      if (isSilent === this.#silent.has(id)) continue
      if (isSilent) {
        this.#silent.add(id)
        event('warn', 'MDS_INACTIVE', `MDS#${id} at ${address} does not answer`)
      } else {
        this.#silent.delete(id)
        event('info', 'MDS_ACTIVE', `MDS#${id} at ${address} answers again`)
      }
    }
  }
}
