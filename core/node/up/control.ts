/** What a running `cairn up` says of itself and obeys, over its control socket. */
import { askControl } from '../control-socket.ts'
import type { ServiceStatus } from './service-process.ts'

export interface UpStatus {
  readonly pid: number
  readonly cluster: string
  readonly phase: 'starting' | 'healthy' | 'stopping'
  readonly endpoints: Readonly<Record<string, string>>
  readonly failure: string | null
  readonly processes: readonly ServiceStatus[]
}

const STATUS_DEADLINE_MS = 5000

/** Null when nothing is running there. */
export function askUpStatus(socketFile: string): Promise<UpStatus | null> {
  return askControl<UpStatus>(socketFile, 'up.status', STATUS_DEADLINE_MS)
}

/** Resolves when everything has stopped. Null when nothing was running. */
export function askUpStop(socketFile: string): Promise<UpStatus | null> {
  return askControl<UpStatus>(socketFile, 'up.stop')
}
