/** What a chunk server holds durably for each replica; one record of the replica log carries all of it. */
import type { ReplicaRole } from '../../wire/messages/chunk.ts'

export const Role = { inSync: 0, joining: 1, reconciling: 2 } as const
export type Role = (typeof Role)[keyof typeof Role]

const roleNames: readonly ReplicaRole[] = ['in-sync', 'joining', 'reconciling']

export function roleName(role: Role): ReplicaRole {
  return roleNames[role] ?? 'joining'
}

export function roleOf(name: ReplicaRole): Role {
  return name === 'in-sync' ? Role.inSync : name === 'joining' ? Role.joining : Role.reconciling
}

export const StateFlag = {
  /** The chunk file exists and was synced once: from now on a missing file is damage (rule E12). */
  written: 1,
  /** Contents are unverified since an unclean stop or an I/O error, until join or heal (rules B1, F7). */
  unclean: 2,
  /** A write or sync failed: what reads back may never have reached the disk (rule F7). */
  failed: 4,
  /** Unclean since a host crash: acknowledged writes may be missing, which no checksum shows (rule J3). */
  crashed: 8,
  /** An overlay: pages in state *absent* are the parent's (rule S2). */
  overlay: 16,
  /** The disk went back in time: what is here may be older than the version says, and no checksum shows it (rule B3). */
  rolledBack: 32,
} as const

/** What a join or a heal ends. */
export const DOUBT_FLAGS = StateFlag.unclean | StateFlag.failed | StateFlag.crashed | StateFlag.rolledBack

/** Bits 8..15 of the flags: how many versions ago the replica was in sync, while it is not; 0: unknown, or too many. */
const AGE_SHIFT = 8
const AGE_MAX = 0xff
const AGE_MASK = AGE_MAX << AGE_SHIFT

export class ReplicaState {
  version = 0
  role: Role = Role.joining
  lease = 0
  flags = 0
  /** Open list: regions that may have been written since the last close (rule B1). */
  openLow = 0
  openHigh = 0
  /** Of an overlay: the chunk it reads through; 0 with the flag: not known any more. */
  parent = 0
  /**
   * Of an overlay: regions where the data area of absent pages may hold leftovers, of a merge or of writes that
   * were lost with the host. They are cleared before the region is used: later on, content there means a write.
   */
  leftoversLow = 0
  leftoversHigh = 0

  copyFrom(other: ReplicaState): void {
    this.version = other.version
    this.role = other.role
    this.lease = other.lease
    this.flags = other.flags
    this.openLow = other.openLow
    this.openHigh = other.openHigh
    this.parent = other.parent
    this.leftoversLow = other.leftoversLow
    this.leftoversHigh = other.leftoversHigh
  }

  get isOverlay(): boolean {
    return (this.flags & StateFlag.overlay) !== 0
  }

  becomeOverlay(parent: number): void {
    this.flags |= StateFlag.overlay
    this.parent = parent
  }

  becomeFlat(): void {
    this.flags &= ~StateFlag.overlay
    this.parent = 0
    this.leftoversLow = 0
    this.leftoversHigh = 0
  }

  /**
   * The last version under which this replica took every write as a member in sync; 0: unknown. What it holds
   * is complete up to there, unless its disk or host failed since (rule J7).
   */
  get inSyncVersion(): number {
    if (this.role === Role.inSync) return this.version
    const age = (this.flags & AGE_MASK) >>> AGE_SHIFT
    return age === 0 ? 0 : this.version - age
  }

  /** A new version, a new role. */
  enter(version: number, role: Role): void {
    const age = this.inSyncVersion === 0 ? 0 : version - this.inSyncVersion
    this.version = version
    this.role = role
    this.flags &= ~AGE_MASK
    if (role !== Role.inSync && age > 0 && age <= AGE_MAX) this.flags |= age << AGE_SHIFT
  }

  get isOpen(): boolean {
    return this.openLow !== 0 || this.openHigh !== 0
  }
}
