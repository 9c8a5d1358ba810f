/** Proves that the parser gives the same frames for every splitting, and that hostile bytes cost little and end it. */
import { deepEqual, equal, ok } from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { BufferPool } from '../base/buffer-pool.ts'
import { Prng } from '../base/prng.ts'
import { FRAME_HEADER_BYTES, FrameKind, FrameParser, sealFrame } from './frame.ts'
import { META_BYTES_MAX, PAYLOAD_BYTES_MAX, TAG_BYTES } from './limits.ts'

interface Frame {
  readonly kind: number
  readonly requestId: number
  readonly meta: Buffer
  readonly payload: Buffer
}

function encode({ kind, requestId, meta, payload }: Frame): Buffer {
  const bytes = Buffer.alloc(FRAME_HEADER_BYTES + meta.length, 0xaa)
  meta.copy(bytes, FRAME_HEADER_BYTES)
  sealFrame(bytes, 0, kind, requestId, meta.length, payload.length)
  return Buffer.concat([bytes, payload])
}

class Recorder {
  readonly frames: Frame[] = []
  readonly errors: string[] = []
  readonly pool = new BufferPool({ poison: true })
  readonly parser = new FrameParser(
    {
      onFrame: (header, meta, payload) => {
        const { kind, requestId } = header
        this.frames.push({
          kind,
          requestId,
          meta: Buffer.from(meta),
          payload: Buffer.from(payload ?? Buffer.alloc(0)),
        })
        if (payload !== null) this.pool.release(payload)
      },
      onFrameError: (reason) => {
        this.errors.push(reason)
      },
    },
    this.pool,
  )

  /** Each piece is overwritten after the call: it was only borrowed. */
  feed(bytes: Buffer, cuts: readonly number[]): void {
    let begin = 0
    for (const end of [...cuts, bytes.length]) {
      const piece = Buffer.from(bytes.subarray(begin, end))
      this.parser.feed(piece)
      piece.fill(0xee)
      begin = end
    }
  }
}

const bytesOf = (maxLength: number) => fc.uint8Array({ maxLength }).map((bytes) => Buffer.from(bytes))
const requestId = fc.integer({ min: 0, max: 0xffff_ffff })
const anyFrame: fc.Arbitrary<Frame> = fc.oneof(
  fc.record({
    kind: fc.integer({ min: 1, max: 9 }),
    requestId,
    meta: bytesOf(300),
    payload: fc.constant(Buffer.alloc(0)),
  }),
  fc.record({
    kind: fc.constantFrom(FrameKind.dataRequest, FrameKind.dataAnswer),
    requestId,
    meta: bytesOf(100),
    payload: bytesOf(5000),
  }),
)

test('every splitting of the bytes gives the same frames', () => {
  fc.assert(
    fc.property(
      fc.array(anyFrame, { maxLength: 6 }),
      fc.array(fc.nat(), { maxLength: 20 }),
      (frames, points) => {
        const bytes = Buffer.concat(frames.map(encode))
        const cuts = points.map((point) => point % (bytes.length + 1)).sort((a, b) => a - b)
        const recorder = new Recorder()
        recorder.feed(bytes, cuts)
        deepEqual(recorder.errors, [])
        deepEqual(
          recorder.frames,
          frames.map((frame) => ({ ...frame })),
        )
        equal(recorder.parser.incomplete, false)
      },
    ),
    { numRuns: 500 },
  )
})

test('byte by byte, and every single cut of one frame', () => {
  const frame = {
    kind: FrameKind.dataRequest,
    requestId: 7,
    meta: Buffer.alloc(60, 1),
    payload: Buffer.alloc(90, 2),
  }
  const bytes = Buffer.concat([encode(frame), encode(frame)])
  for (let cut = 0; cut <= bytes.length; cut++) {
    const recorder = new Recorder()
    recorder.feed(bytes, [cut])
    deepEqual(recorder.frames, [frame, frame], `cut at ${cut}`)
  }
  const recorder = new Recorder()
  recorder.feed(
    bytes,
    Array.from(bytes, (_, index) => index),
  )
  deepEqual(recorder.frames, [frame, frame])
})

test('the largest meta and payload pass, one byte more is refused before memory is spent', () => {
  const largest = {
    kind: FrameKind.dataAnswer,
    requestId: 1,
    meta: Buffer.alloc(META_BYTES_MAX, 5),
    payload: Buffer.alloc(PAYLOAD_BYTES_MAX, 6),
  }
  const recorder = new Recorder()
  recorder.feed(encode(largest), [10, 100_000, 1_200_000])
  deepEqual(recorder.errors, [])
  equal(recorder.frames[0]?.payload.equals(largest.payload), true)
  for (const at of [16, 20]) {
    const header = Buffer.alloc(FRAME_HEADER_BYTES)
    sealFrame(header, 0, FrameKind.dataAnswer, 1, 0, 0)
    header.writeUInt32LE(at === 16 ? META_BYTES_MAX + TAG_BYTES + 1 : PAYLOAD_BYTES_MAX + 1, at)
    const refused = new Recorder()
    refused.feed(header, [])
    equal(refused.errors.length, 1)
    equal(refused.parser.heldBytes, 0)
  }
})

test('a header that announces a large meta costs only the bytes that arrive', () => {
  const header = Buffer.alloc(FRAME_HEADER_BYTES)
  sealFrame(header, 0, FrameKind.call, 1, 0, 0)
  header.writeUInt32LE(META_BYTES_MAX, 16)
  const recorder = new Recorder()
  recorder.feed(Buffer.concat([header, Buffer.alloc(1000)]), [])
  equal(recorder.parser.incomplete, true)
  ok(recorder.parser.heldBytes < 4096)
})

test('every single-bit error in header or meta is one error, and the parser is dead', () => {
  const frame = {
    kind: FrameKind.call,
    requestId: 99,
    meta: Buffer.from('some meta bytes'),
    payload: Buffer.alloc(0),
  }
  const bytes = encode(frame)
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const damaged = Buffer.from(bytes)
    damaged[bit >> 3] = (damaged[bit >> 3] as number) ^ (1 << (bit & 7))
    const recorder = new Recorder()
    // behind it enough bytes for a length that became larger
    recorder.feed(Buffer.concat([damaged, Buffer.alloc(PAYLOAD_BYTES_MAX + META_BYTES_MAX)]), [])
    deepEqual(recorder.frames, [], `bit ${bit}`)
    equal(recorder.errors.length, 1, `bit ${bit}`)
    recorder.feed(bytes, [])
    deepEqual(recorder.frames, [])
  }
})

test('100,000 hostile inputs: at most one error each, bounded memory, no exception', () => {
  const random = new Prng(20_260_101)
  const valid = encode({
    kind: FrameKind.dataRequest,
    requestId: 3,
    meta: Buffer.alloc(52, 9),
    payload: Buffer.alloc(20, 8),
  })
  let errors = 0
  for (let i = 0; i < 100_000; i++) {
    const bytes = Buffer.from(valid)
    const changes = 1 + random.below(4)
    for (let change = 0; change < changes; change++) bytes[random.below(84)] = random.below(256)
    if (i % 4 === 0) bytes.writeUInt32LE(random.uint32(), 16 + 4 * random.below(2))
    let frames = 0
    let failures = 0
    const pool = new BufferPool({ retainedBytesMax: 0 })
    const parser = new FrameParser({ onFrame: () => frames++, onFrameError: () => failures++ }, pool)
    const cut = random.below(bytes.length)
    parser.feed(bytes.subarray(0, cut))
    parser.feed(bytes.subarray(cut))
    ok(failures <= 1 && frames <= 1 && failures + frames <= 1)
    ok(parser.heldBytes <= PAYLOAD_BYTES_MAX + 1024)
    errors += failures
  }
  ok(errors > 50_000, `${errors} were recognised at once`)
})

test('halt stops between frames and reports what was taken', () => {
  const one = encode({ kind: FrameKind.ping, requestId: 1, meta: Buffer.alloc(0), payload: Buffer.alloc(0) })
  let count = 0
  const parser: FrameParser = new FrameParser(
    {
      onFrame: () => {
        count++
        parser.halt()
      },
      onFrameError: () => {},
    },
    new BufferPool(),
  )
  equal(parser.feed(Buffer.concat([one, one])), FRAME_HEADER_BYTES)
  equal(parser.feed(one), FRAME_HEADER_BYTES)
  equal(count, 2)
})
