// Proves that the block oracle of the simulator catches what it must: lost, stale, torn and resurrected
// data; and allows what the promises allow. A checker that accepts everything would pass every simulation.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FileModel, PAGE_BYTES, SECTOR_BYTES, type WriteRecord } from './file-model.ts'
import { patternOf } from './pattern.ts'

class Script {
  readonly model = new FileModel('f')
  #now = 0
  #nextId = 1

  issue(begin: number, end: number): WriteRecord {
    this.#now += 1
    const record: WriteRecord = {
      id: this.#nextId++,
      client: 'c',
      begin,
      end,
      isZeros: false,
      issuedAt: this.#now,
      endedAt: Number.POSITIVE_INFINITY,
      description: 'test',
    }
    this.model.begin(record)
    this.model.growMaximum(this.#now, end)
    return record
  }

  acknowledge(record: WriteRecord): void {
    this.#now += 1
    this.model.acknowledge(record, this.#now, false, this.#now)
    this.model.growMinimum(this.#now, record.end)
  }

  write(begin: number, end: number): WriteRecord {
    const record = this.issue(begin, end)
    this.acknowledge(record)
    return record
  }

  fail(record: WriteRecord): void {
    record.endedAt = ++this.#now
  }

  flush(): void {
    this.endFlush(this.beginFlush())
  }

  beginFlush(): number {
    return ++this.#now
  }

  endFlush(issuedAt: number): void {
    this.#now += 1
    this.model.flushed('c', issuedAt)
  }

  beginTruncate(size: number): void {
    this.model.widenSize(++this.#now, size)
  }

  endTruncate(size: number): void {
    this.model.setSize(++this.#now, size, size)
  }

  get now(): number {
    return this.#now
  }

  /** Null when the model accepts that `[begin, …)` holds `pieces`, in order. */
  read(begin: number, ...pieces: readonly [WriteRecord | null, number][]): string | null {
    let position = begin
    const data = Buffer.concat(
      pieces.map(([record, length]) => {
        const piece = record === null ? Buffer.alloc(length) : patternOf(record.id, position, length)
        position += length
        return piece
      }),
    )
    return this.model.checkRead(begin, data.length, data, this.#now)
  }
}

const page = PAGE_BYTES

test('an acknowledged write must be read; what it replaced must not', () => {
  const script = new Script()
  const first = script.write(0, page)
  const second = script.write(100, 200)
  assert.equal(script.read(0, [first, 100], [second, 100], [first, page - 200]), null)
  assert.match(script.read(0, [first, page]) ?? '', /100 to 200 hold w1 .*superseded/)
  assert.match(script.read(0, [null, page]) ?? '', /hold zeros/)
})

test('an unanswered write is page by page there or not', () => {
  const script = new Script()
  const first = script.write(0, 2 * page)
  const second = script.issue(0, 2 * page)
  assert.equal(script.read(0, [first, page], [second, page]), null)
  assert.equal(script.read(0, [second, page], [first, page]), null)
  assert.match(script.read(0, [second, SECTOR_BYTES], [first, page - SECTOR_BYTES]) ?? '', /allowed/)
})

test('a write of unknown outcome ends with the next acknowledged one', () => {
  const script = new Script()
  const first = script.write(0, page)
  const lost = script.issue(0, page)
  script.fail(lost)
  assert.equal(script.read(0, [first, page]), null)
  assert.equal(script.read(0, [lost, page]), null)
  const last = script.write(0, page)
  assert.equal(script.read(0, [last, page]), null)
  assert.match(script.read(0, [lost, page]) ?? '', /superseded/)
})

test('writes that overlapped in time may have gone either way', () => {
  const script = new Script()
  const first = script.issue(0, page)
  const second = script.issue(0, page)
  script.acknowledge(second)
  script.acknowledge(first)
  assert.equal(script.read(0, [first, page]), null)
  assert.equal(script.read(0, [second, page]), null)
  assert.match(script.read(0, [null, page]) ?? '', /zeros/)
})

test('power loss undoes unflushed writes sector by sector, and no flushed ones', () => {
  const script = new Script()
  const older = script.write(0, page)
  const flushed = script.write(0, page)
  script.flush()
  const unflushed = script.write(0, page)
  assert.notEqual(script.read(0, [flushed, page]), null)
  script.model.lostPower(0, 64 * 1024 * 1024)
  assert.equal(script.read(0, [unflushed, page]), null)
  assert.equal(script.read(0, [flushed, SECTOR_BYTES], [unflushed, page - SECTOR_BYTES]), null)
  assert.notEqual(script.read(0, [older, page]), null)
})

test('a flush that succeeds after a power loss says that nothing was lost', () => {
  const script = new Script()
  const old = script.write(0, page)
  script.flush()
  const kept = script.write(0, page)
  script.model.lostPower(0, 64 * 1024 * 1024)
  script.flush()
  assert.equal(script.read(0, [kept, page]), null)
  assert.notEqual(script.read(0, [old, page]), null)
})

test('a flush that said EIO leaves what was lost possible for good', () => {
  const script = new Script()
  const old = script.write(0, page)
  script.flush()
  const maybe = script.write(0, page)
  script.model.lostPower(0, 64 * 1024 * 1024)
  script.model.forgive()
  script.flush()
  assert.equal(script.read(0, [old, page]), null)
  assert.equal(script.read(0, [maybe, page]), null)
})

test('a read that ends before the acknowledged size, or goes on behind it, is wrong', () => {
  const script = new Script()
  const record = script.write(0, 5000)
  assert.match(
    script.model.checkRead(0, 8192, patternOf(record.id, 0, 4096), script.now) ?? '',
    /gave 4096 bytes/,
  )
  assert.match(script.model.checkRead(0, 8192, Buffer.alloc(8192), script.now) ?? '', /gave 8192 bytes/)
  assert.equal(script.model.checkSize(5000, script.now), null)
  assert.match(script.model.checkSize(4096, script.now) ?? '', /5000/)
})

test('truncated bytes are zeros when the file grows again', () => {
  const script = new Script()
  const record = script.write(0, 2 * page)
  const cut: WriteRecord = {
    ...script.issue(0, 0),
    begin: page,
    end: Number.POSITIVE_INFINITY,
    isZeros: true,
    id: 99,
  }
  script.model.begin(cut)
  script.model.acknowledge(cut, script.now + 1, true, 0)
  script.model.setSize(script.now + 1, page, page)
  const grown = script.write(3 * page, 4 * page)
  assert.equal(script.read(0, [record, page], [null, 2 * page], [grown, page]), null)
  assert.notEqual(script.read(0, [record, 2 * page], [null, page], [grown, page]), null)
})

/** Every replica's host loses power, and a flush has said so. */
function loseAndTell(script: Script): void {
  script.model.lostPower(0, 64 * 1024 * 1024)
  script.model.forgive()
}

test('a flush that was issued before a truncate does not bring the size before it back (seed 1522)', () => {
  const script = new Script()
  script.write(0, 5000)
  const flush = script.beginFlush()
  script.beginTruncate(0)
  script.endTruncate(0)
  script.endFlush(flush)
  script.write(0, 100)
  loseAndTell(script)
  const kept = script.write(0, 200)
  assert.equal(script.model.checkSize(200, script.now), null)
  assert.match(script.model.checkSize(5000, script.now) ?? '', /may be 200 to 200/)
  script.flush()
  loseAndTell(script)
  assert.match(script.model.checkSize(100, script.now) ?? '', /may be 200/, 'flushed after the truncate')
  assert.equal(script.read(0, [kept, 200]), null)
})

test('a truncate of unknown outcome may have shortened the file for good', () => {
  const script = new Script()
  script.write(0, 5000)
  script.flush()
  script.beginTruncate(10)
  script.write(0, 100)
  assert.match(script.model.checkSize(10, script.now) ?? '', /may be 100 to 5000/)
  script.model.lostPower(0, 64 * 1024 * 1024)
  assert.equal(script.model.checkSize(10, script.now), null)
  script.model.forgive()
  assert.equal(script.model.checkSize(10, script.now), null)
  assert.match(script.model.checkSize(9, script.now) ?? '', /may be 10 to 5000/)
})

test('what a truncate put into the quorum is not taken back by a flush that was issued before it', () => {
  const script = new Script()
  script.write(0, 100)
  const flush = script.beginFlush()
  script.beginTruncate(5000)
  script.endTruncate(5000)
  script.endFlush(flush)
  script.model.lostPower(0, 64 * 1024 * 1024)
  assert.match(script.model.checkSize(100, script.now) ?? '', /may be 5000 to 5000/)
})
