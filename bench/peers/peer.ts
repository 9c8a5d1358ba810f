/** A storage system that the workloads run on. */
export interface Peer {
  readonly name: string
  /** Brings it up with 3 replicas and mounts it; resolves with the mount. */
  up(): Promise<string>
  down(): Promise<void>
  /** Processor time of its processes so far; compared before and after a job. */
  processorMs?(): number
  /** Versions and settings worth printing beside the figures. */
  describe(): Promise<string>
}
