/** The whole state machine: all handlers over one state. The compiler proves it complete. */
import { ChunkTable } from '../chunks/chunk-table.ts'
import { chunkHandlers } from '../chunks/handlers.ts'
import { chunkActions } from '../chunks/replicas.ts'
import { keyValueHandlers } from '../keyvalue/handlers.ts'
import { namespaceHandlers } from '../namespace/handlers.ts'
import { snapshotHandlers } from '../snapshots/handlers.ts'
import { type CommandType, type Handlers, StateMachine } from './apply.ts'
import { MetadataState } from './state.ts'

export function createStateMachine(): StateMachine<ChunkTable> {
  const handlers: Handlers<CommandType, ChunkTable> = {
    ...namespaceHandlers(chunkActions),
    ...keyValueHandlers,
    ...chunkHandlers,
    ...snapshotHandlers,
  }
  return new StateMachine(new MetadataState(new ChunkTable()), handlers)
}
