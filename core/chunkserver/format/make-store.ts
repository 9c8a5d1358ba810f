/**
 * What make-cs warns about before it makes a store (guide, "Setting Up Chunk Servers", "Creating Host
 * UUIDs"). Pure: facts in, warnings out; core/platform/node/disk-facts.ts gathers the facts of a disk.
 */
import { GIB, KIB, MIB } from '../../base/units.ts'

/** Partitions begin on a multiple of this, or writes are split on most disks. */
const PARTITION_ALIGNMENT_BYTES = 4 * KIB
/** One chunk with its records, and the reserve. */
const SPACE_BYTES_MIN = GIB

export interface DiskFacts {
  /** Kernel name, 'sdb1'; empty: not a block device that can be told. */
  readonly device: string
  readonly fileSystem: string
  /** Where the partition begins on its disk; null: the whole disk, or unknown. */
  readonly partitionStartBytes: number | null
  /** The disk also carries the root file system. */
  readonly isSystemDisk: boolean
  readonly holdsSwap: boolean
  /** tmpfs and the like: gone at the next boot. */
  readonly isMemory: boolean
  readonly totalBytes: number
  readonly freeBytes: number
}

export interface KnownHost {
  readonly hostId: string
  readonly hostName: string
}

export interface NewStoreFacts {
  readonly disk: DiskFacts
  readonly hostId: string
  readonly hostName: string
  /** Hosts of the chunk servers that the cluster knows. */
  readonly knownHosts: readonly KnownHost[]
}

export interface NewStoreWarning {
  readonly code:
    | 'PARTITION_MISALIGNED'
    | 'SYSTEM_DISK'
    | 'SWAP_DISK'
    | 'LITTLE_SPACE'
    | 'NOT_PERSISTENT'
    | 'HOST_ID_IN_USE'
  readonly message: string
  readonly next: string
}

/** In order of importance. None of them prevents the store from being made. */
export function checkNewStore(facts: NewStoreFacts): NewStoreWarning[] {
  const warnings: NewStoreWarning[] = []
  const { disk } = facts
  const same = facts.knownHosts.find(
    (host) => host.hostId === facts.hostId && host.hostName !== facts.hostName,
  )
  if (same !== undefined) {
    warnings.push({
      code: 'HOST_ID_IN_USE',
      message: `host_id ${facts.hostId} is already used by host ${same.hostName}: replicas on both count as on one host`,
      next: 'give this host an id of its own: write 16 random hexadecimal digits into host_id',
    })
  }
  if (disk.isMemory) {
    warnings.push({
      code: 'NOT_PERSISTENT',
      message: `the directory lies in memory (${disk.fileSystem}): its chunks are gone at the next boot`,
      next: 'choose a directory on a disk',
    })
  }
  if (disk.isSystemDisk) {
    warnings.push({
      code: 'SYSTEM_DISK',
      message: `${disk.device} also carries the operating system: both will be slow`,
      next: 'use a disk of its own for every chunk server',
    })
  }
  if (disk.holdsSwap) {
    warnings.push({
      code: 'SWAP_DISK',
      message: `${disk.device} also carries swap space: paging and chunks will get in each other's way`,
      next: 'use a disk of its own for every chunk server',
    })
  }
  const start = disk.partitionStartBytes
  if (start !== null && start % PARTITION_ALIGNMENT_BYTES !== 0) {
    warnings.push({
      code: 'PARTITION_MISALIGNED',
      message: `partition ${disk.device} begins at byte ${start}, which is not a multiple of 4096: writes will be slow`,
      next: 'partition the disk again with an alignment of 1 MiB (parted --align optimal, prepare-drive)',
    })
  }
  if (disk.freeBytes < SPACE_BYTES_MIN) {
    warnings.push({
      code: 'LITTLE_SPACE',
      message: `only ${Math.floor(disk.freeBytes / MIB)} MiB are free`,
      next: 'choose a larger disk or make room',
    })
  }
  return warnings
}
