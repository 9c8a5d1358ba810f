/** A machine of the simulated cluster: started, killed, cut from its power, paused. */
import type { SimulatedCluster } from './simulated-cluster.ts'
import type { SimulatedDisk } from './simulated-disk.ts'
import type { ProcessLife } from './simulated-process.ts'

/** A process that ended by itself is started again after this, as a supervisor would. */
export const SUPERVISOR_DELAY_MS = 500

/** One machine with one process on it, which may be dead at the moment. */
export abstract class SimulatedNode {
  readonly name: string
  readonly host: string
  /** Null: nothing of it outlives a process, or not on a disk of this kind. */
  disk: SimulatedDisk | null
  protected readonly cluster: SimulatedCluster
  protected life: ProcessLife | null = null
  #lifeCount = 0

  constructor(cluster: SimulatedCluster, name: string, disk: SimulatedDisk | null) {
    this.cluster = cluster
    this.name = name
    this.host = `${name}.host`
    this.disk = disk
  }

  /** Id of the chunk server; 0: it is none, or has none yet. */
  get server(): number {
    return 0
  }

  get isRunning(): boolean {
    return this.life !== null
  }

  /** Starts the process when it is dead. */
  restart(): void {
    if (this.life !== null) return
    const life = this.cluster.newLife(this.name, this.host, ++this.#lifeCount)
    this.life = life
    this.begin(life).catch((error: unknown) => this.ended(life, error))
  }

  /** kill -9. */
  crash(): void {
    this.#stop(false)
    this.disk?.crashProcess()
    this.forget()
  }

  /** The machine loses power: memory gone, unsynced sectors of its disk perhaps too, peers not told. */
  losePower(): void {
    this.#stop(true)
    this.disk?.losePower()
    this.forget()
  }

  pause(): void {
    this.life?.clock.pause()
  }

  /** `suspendedMs`: it was the whole machine that stood still, for so long. */
  resume(suspendedMs = 0): void {
    this.life?.clock.wasSuspended(suspendedMs)
    this.life?.clock.resume()
  }

  /** Somebody sets the time of day. */
  stepWall(seconds: number): void {
    this.life?.clock.stepWall(seconds)
  }

  protected abstract begin(life: ProcessLife): Promise<void>
  protected abstract forget(): void

  /** The process ended by itself. */
  protected ended(life: ProcessLife, reason: unknown): void {
    if (life !== this.life) return
    this.cluster.processEnded(this.name, reason)
    this.crash()
    this.cluster.clock.setTimer(SUPERVISOR_DELAY_MS, () => this.restart())
  }

  #stop(isSilent: boolean): void {
    const life = this.life
    this.life = null
    life?.end(isSilent)
    // A machine that comes back answers old connections with a reset.
    if (isSilent) this.cluster.noteSilentEnd(this.host)
  }
}
