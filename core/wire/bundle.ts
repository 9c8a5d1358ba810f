/**
 * Bundles: the control frames of one turn in one frame, with one checksum and one tag (docs/formats/wire.md).
 * The meta is a row of
 *
 *     0 length u32 (of the meta that follows) · 4 request id u32 · 8 kind u8 · 9 zero (3 bytes) · 12 meta …
 *
 * The outbox makes them, the reader here takes them apart. Sent only to peers that have said that they take them
 * (FEATURE_BUNDLES).
 */
import { KIB } from '../base/units.ts'
import { FrameKind } from './frame.ts'

export const BUNDLED_HEADER_BYTES = 12
/** Without frame header and tag. Both sides keep to it: so much is dispatched in one piece. */
export const BUNDLE_BYTES_MAX = 32 * KIB
/** Larger messages travel by themselves: for them a checksum and a tag of their own are nothing. */
export const BUNDLED_META_BYTES_MAX = 8 * KIB

const bundledKinds: ReadonlySet<number> = new Set([
  FrameKind.call,
  FrameKind.result,
  FrameKind.error,
  FrameKind.notify,
  FrameKind.ping,
  FrameKind.pong,
  FrameKind.authentication,
])

export function writeBundled(
  target: Buffer,
  at: number,
  kind: number,
  requestId: number,
  borrowedMeta: Buffer,
): void {
  target.writeUInt32LE(borrowedMeta.length, at)
  target.writeUInt32LE(requestId, at + 4)
  target.writeUInt32LE(kind, at + 8)
  borrowedMeta.copy(target, at + BUNDLED_HEADER_BYTES)
}

export interface BundledHandler {
  /** One frame out of a bundle. False: no further one for now. */
  onBundled(kind: number, requestId: number, borrowedMeta: Buffer): boolean
  /** The connection must end. The frames before the fault have been handled. */
  onBundleFault(reason: string): void
}

export class BundleReader {
  readonly #handler: BundledHandler
  #rest: Buffer | null = null
  #isStopped = false

  constructor(handler: BundledHandler) {
    this.#handler = handler
  }

  /** The handler has stopped in the middle: nothing else may be dispatched before `goOn`. */
  get isInterrupted(): boolean {
    return this.#rest !== null
  }

  /** What waits for `goOn`. At most one bundle. */
  get heldBytes(): number {
    return this.#rest?.length ?? 0
  }

  take(borrowedMeta: Buffer): void {
    if (borrowedMeta.length > BUNDLE_BYTES_MAX)
      this.#handler.onBundleFault(`a bundle of ${borrowedMeta.length} bytes`)
    else this.#read(borrowedMeta)
  }

  /** From where the handler has stopped. */
  goOn(): void {
    const rest = this.#rest
    this.#rest = null
    if (rest !== null) this.#read(rest)
  }

  /** Nothing is handed out any more. */
  stop(): void {
    this.#isStopped = true
    this.#rest = null
  }

  #read(bytes: Buffer): void {
    const handler = this.#handler
    let at = 0
    while (at < bytes.length && !this.#isStopped) {
      const metaAt = at + BUNDLED_HEADER_BYTES
      const end = metaAt > bytes.length ? metaAt : metaAt + bytes.readUInt32LE(at)
      if (end > bytes.length) {
        handler.onBundleFault('a bundle that is cut short')
        return
      }
      // the bytes behind it are zero, or this is no kind
      const kind = bytes.readUInt32LE(at + 8)
      if (!bundledKinds.has(kind)) {
        handler.onBundleFault(`a frame of kind ${kind} in a bundle`)
        return
      }
      const wantsMore = handler.onBundled(kind, bytes.readUInt32LE(at + 4), bytes.subarray(metaAt, end))
      at = end
      if (wantsMore) continue
      if (at < bytes.length && !this.#isStopped) this.#rest = Buffer.from(bytes.subarray(at))
      return
    }
  }
}
