/**
 * The half of the state machine that is about sessions, leases, chunks, servers and events: the table of
 * handlers by command. Each handler re-checks its condition (rule E6) and changes nothing when it refuses.
 */
import type { ApplyContext, CommandType, Handlers } from '../state/apply.ts'
import type { MetadataState } from '../state/state.ts'
import { administrationHandlers } from './administration.ts'
import { alarmHandlers } from './alarm.ts'
import type { ChunkTable } from './chunk-table.ts'
import { epochHandlers } from './epochs.ts'
import { intentHandlers } from './intents.ts'
import { leaseHandlers } from './leases.ts'
import { memberHandlers } from './members.ts'
import { promotionHandlers } from './promotion.ts'
import { renewalHandlers } from './renewal.ts'
import { replicaHandlers } from './replicas.ts'
import { serverHandlers } from './servers.ts'
import { sessionHandlers } from './sessions.ts'
import { sizeHandlers } from './sizes.ts'

export type ChunkState = MetadataState<ChunkTable>
export type ChunkContext = ApplyContext<ChunkTable>

export type ChunkHandlers<Types extends CommandType> = Pick<Handlers<CommandType, ChunkTable>, Types>

export const chunkHandlers = {
  ...sessionHandlers,
  ...leaseHandlers,
  ...sizeHandlers,
  ...intentHandlers,
  ...epochHandlers,
  ...replicaHandlers,
  ...serverHandlers,
  ...memberHandlers,
  ...administrationHandlers,
  ...renewalHandlers,
  ...alarmHandlers,
  ...promotionHandlers,
}
