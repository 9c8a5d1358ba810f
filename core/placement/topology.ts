/**
 * Where chunk servers are: the five levels of the guide's topology path (room.row.rack.host.cs) and what
 * "one replica for each failure domain" means. Pure functions over plain values.
 */

/** How large a group may fail at once; at most one replica of a chunk lies in each group (guide: failure domains). */
export type FailureDomain = 'disk' | 'host' | 'rack' | 'row' | 'room'

export interface PlacementServer {
  readonly server: number
  readonly hostId: string
  /** `room.row.rack`; missing levels count as '0'. */
  readonly location: string
  readonly tier: number
  readonly totalBytes: number
  /** Free, less what is promised already. */
  readonly freeBytes: number
  readonly state: 'active' | 'inactive' | 'offline' | 'dropped'
  /** May it get new replicas now (healthy disk, not leaving, bounds of running joins not reached)? */
  readonly accepts: boolean
  /** Its disk has too many bad pages: what it holds is wanted elsewhere, and it gets nothing (rule R1). */
  readonly isFailing?: boolean
}

/** Replicas of one chunk whose keys are equal fail together. */
export function domainKeyOf(server: PlacementServer, domain: FailureDomain): string {
  if (domain === 'disk') return `cs ${server.server}`
  if (domain === 'host') return `host ${server.hostId}`
  const [room = '0', row = '0', rack = '0'] = server.location.split('.')
  if (domain === 'room') return `room ${room}`
  if (domain === 'row') return `row ${room}.${row}`
  return `rack ${room}.${row}.${rack}`
}

/** Groups among `servers`: how many replicas of one chunk can be placed at most. */
export function domainCount(servers: Iterable<PlacementServer>, domain: FailureDomain): number {
  const keys = new Set<string>()
  for (const server of servers) keys.add(domainKeyOf(server, domain))
  return keys.size
}
