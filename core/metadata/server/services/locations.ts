/** Chunk rows as clients see them: active epochs only, with the addresses of everybody named (rules E1, E4). */
import type { ChunkLocation, ServerAddress } from '../../../wire/messages/common.ts'
import type { ChunkState } from '../../chunks/handlers.ts'
import { isHeldBy } from '../../chunks/sharing.ts'
import { isSettled } from '../../control/replication/chunk-waiters.ts'
import type { ServersView } from '../../control/servers/servers-view.ts'
import { wireError } from '../../errors.ts'
import type { ChunkRow, InodeRow } from '../../state/rows.ts'

export interface Located {
  locations: ChunkLocation[]
  servers: ServerAddress[]
  generation: number
}

export class Locations {
  readonly #state: ChunkState
  readonly #view: ServersView

  constructor(state: ChunkState, view: ServersView) {
    this.#state = state
    this.#view = view
  }

  file(inode: number): InodeRow {
    const file = this.#state.inodes.get(inode)
    if (file === undefined) throw wireError('ESTALE', `inode ${inode} no longer exists`)
    if (file.type !== 'file') throw wireError('EINVAL', `inode ${inode} is a ${file.type}`)
    return file
  }

  /** Ids of the chunks that exist among these indexes. */
  chunksAt(file: InodeRow, indexes: readonly number[]): number[] {
    const chunks: number[] = []
    for (const index of new Set(indexes)) {
      const chunk = file.chunks.get(index)
      if (chunk !== undefined) chunks.push(chunk)
    }
    return chunks
  }

  /** Rule E1: clients get active epochs only. */
  areSettled(chunks: readonly number[]): boolean {
    return chunks.every((chunk) => {
      const row = this.#state.chunks.get(chunk)
      return row === undefined || isSettled(row)
    })
  }

  /** Chunks that are gone by now are left out. */
  located(inode: number, chunks: readonly number[]): Located {
    const rows = chunks
      .map((chunk) => this.#state.chunks.get(chunk))
      .filter((row): row is ChunkRow => row !== undefined && isHeldBy(row, inode))
    return {
      locations: rows.map((row) => this.locationOf(row)),
      servers: this.addressesOf(rows),
      generation: this.#state.inodes.get(inode)?.generation ?? 0,
    }
  }

  locationOf(row: ChunkRow): ChunkLocation {
    const { index, chunk, version, writable, lossVersion } = row
    const members = row.members.map(({ server, role, since }) => ({ server, role, since }))
    const loss = lossVersion === undefined ? {} : { lossVersion }
    return { index, chunk, version, writable, ...loss, members }
  }

  addressesOf(rows: readonly ChunkRow[]): ServerAddress[] {
    const servers = new Set(rows.flatMap((row) => row.members.map((member) => member.server)))
    const addresses: ServerAddress[] = []
    for (const server of servers) {
      const row = this.#state.servers.get(server)
      if (row === undefined) continue
      const active = row.state === 'active' && this.#view.isReachable(server)
      addresses.push({ server, host: row.host, port: row.port, active })
    }
    return addresses
  }
}
