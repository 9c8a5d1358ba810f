// Proves that the oracle knows what a snapshot, a clone and a rolled back file may contain (rule S1): nothing but what
// the file was at one moment of the call; never something else later; and after a rollback that and nothing older.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SimulatedClock } from '../../core/testing/simulation/simulated-clock.ts'
import { FileModel, PAGE_BYTES, type WriteRecord } from './file-model.ts'
import { Oracle } from './oracle.ts'
import { patternOf } from './pattern.ts'
import { Trace } from './trace.ts'

/** A view: all that has been superseded so far may not be seen. */
const LATEST = Number.MAX_SAFE_INTEGER

class Script {
  readonly oracle = new Oracle(new Trace(new SimulatedClock(), null))
  readonly file = this.oracle.file('f')

  issue(page: number, file = this.file): WriteRecord {
    return this.oracle.beginWrite('a', file, page * PAGE_BYTES, (page + 1) * PAGE_BYTES)
  }

  acknowledge(record: WriteRecord, file = this.file): void {
    this.oracle.acknowledge('a', file, record, false)
    file.growMinimum(this.oracle.now, record.end)
  }

  write(page: number, file = this.file): WriteRecord {
    const record = this.issue(page, file)
    this.acknowledge(record, file)
    return record
  }

  copy(since: number, isSnapshot = true): FileModel {
    const copy = new FileModel('copy')
    this.oracle.copied(this.file, copy, since, isSnapshot)
    return copy
  }
}

function read(model: FileModel, { id, begin, end }: WriteRecord): string | null {
  const data = patternOf(id, begin, end - begin)
  return model.checkRead(begin, data.length, data, LATEST)
}

test('what was acknowledged before is in a snapshot, what was issued after it is not', () => {
  const script = new Script()
  script.write(0)
  const before = script.write(0)
  const snapshot = script.copy(script.oracle.tick())
  const after = script.write(0)
  assert.equal(read(snapshot, before), null)
  assert.match(read(snapshot, after) ?? '', /hold .*allowed: w2/)
  assert.notEqual(read(script.file, before), null, 'the file goes on')
  assert.equal(read(script.file, after), null)
})

test('a snapshot is of one moment: not the later of two writes without the earlier', () => {
  const script = new Script()
  const [old, since] = [script.write(0), script.oracle.tick()]
  const first = script.write(0)
  const second = script.write(1)
  for (const [page, isRight] of [
    [first, true],
    [old, false],
  ] as const) {
    const snapshot = script.copy(since)
    assert.equal(read(snapshot, second), null)
    assert.equal(read(snapshot, page) === null, isRight)
  }
})

test('what was seen of a snapshot is all it ever holds; a clone of it holds that, too', () => {
  const script = new Script()
  const old = script.write(0)
  const since = script.oracle.tick()
  const underWay = script.issue(0)
  const snapshot = script.copy(since)
  assert.equal(read(snapshot, old), null)
  assert.equal(read(snapshot, old), null)
  assert.match(read(snapshot, underWay) ?? '', /allowed: w1 /)
  const clone = new FileModel('clone')
  script.oracle.copied(snapshot, clone, script.oracle.tick(), false)
  assert.match(read(clone, underWay) ?? '', /allowed: w1 /)
  const own = script.write(0, clone)
  assert.equal(read(clone, own), null)
  assert.notEqual(read(clone, old), null)
})

test('a power loss undoes nothing that a snapshot or clone was made of, but what was written since', () => {
  const script = new Script()
  const old = script.write(0)
  const flushedByIt = script.write(0)
  const snapshot = script.copy(script.oracle.tick())
  const clone = script.copy(script.oracle.tick(), false)
  const later = script.write(0)
  const inClone = script.write(0, clone)
  script.file.lostPower(0, PAGE_BYTES)
  clone.lostPower(0, PAGE_BYTES)
  for (const one of [later, flushedByIt]) assert.equal(read(script.file, one), null)
  for (const one of [inClone, flushedByIt]) assert.equal(read(clone, one), null)
  for (const model of [script.file, clone, snapshot]) assert.notEqual(read(model, old), null)
  assert.equal(read(snapshot, flushedByIt), null)
})

test('a rollback: the snapshot at once or not, then nothing older; the size too', () => {
  const script = new Script()
  const old = script.write(0)
  const snapshot = script.copy(script.oracle.tick())
  const newer = script.write(0)
  script.write(3)
  const record = script.oracle.beginRollback('a', script.file, snapshot)
  for (const one of [old, newer]) assert.equal(read(script.file, one), null)
  script.oracle.rolledBack('a', script.file, snapshot, record, script.file.sizeMaximum)
  const view = script.oracle.viewOf('a', script.file)
  const readNow = ({ id, begin, end }: WriteRecord): string | null =>
    script.file.checkRead(begin, end - begin, patternOf(id, begin, end - begin), view)
  assert.equal(readNow(old), null)
  assert.notEqual(readNow(newer), null)
  assert.equal(script.file.checkSize(PAGE_BYTES, view), null)
  assert.notEqual(script.file.checkSize(4 * PAGE_BYTES, view), null)
})

test('a truncation beside a snapshot: one size or the other, and then that', () => {
  const script = new Script()
  script.write(0)
  const since = script.oracle.tick()
  script.write(1)
  const snapshot = script.copy(since)
  assert.equal(snapshot.checkSize(PAGE_BYTES, 0), null)
  assert.match(snapshot.checkSize(2 * PAGE_BYTES, 0) ?? '', /may be 4096 to 4096/)
})
