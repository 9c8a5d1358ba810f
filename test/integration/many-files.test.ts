/**
 * 100,000 files in one tree: made in parallel, listed, read, deleted; and what the servers need in memory
 * for them and when they are idle. Issue: what it must show, memory.
 *
 * Runs alone: it measures memory, and needs all processors there are.
 */
import assert from 'node:assert/strict'
import fs from 'node:fs'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { must, TestCluster, until } from './support/cluster.ts'
import { contentsOf } from './support/file-contents.ts'

const MIB = 1024 * 1024
const DIRECTORIES = 100
const FILES_EACH = 1000
const FILES = DIRECTORIES * FILES_EACH
/** Enough that the metadata server commits many at once. */
const WRITERS = 20
const METADATA_SERVER_BYTES_MAX = 240 * MIB
const IDLE_CHUNK_SERVER_BYTES_MAX = 120 * MIB

describe('100,000 files in one tree', { timeout: 350_000 }, () => {
  let cluster: TestCluster
  let tree: string
  const ends: (() => Promise<void>)[] = []
  before(async () => {
    cluster = await TestCluster.start((end) => ends.push(end))
    tree = path.join(cluster.mount, 'tree')
    fs.mkdirSync(tree)
  })
  after(async () => {
    for (const end of ends.reverse()) await end()
  })

  /** Resident bytes of the processes of a role. */
  async function memory(role: string): Promise<number[]> {
    return (await cluster.processes())
      .filter((service) => service.role === role)
      .map(({ pid }) => {
        const status = fs.readFileSync(`/proc/${pid}/status`, 'utf8')
        return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? Number.NaN) * 1024
      })
  }

  it('an idle chunk server is small', async () => {
    const sizes = await memory('cs')
    assert.equal(sizes.length, 3)
    for (const size of sizes) assert.ok(size < IDLE_CHUNK_SERVER_BYTES_MAX, `${size / MIB} MiB`)
  })

  it('they are made by several writers at once', { timeout: 240_000 }, async (t) => {
    const startMs = performance.now()
    const each = DIRECTORIES / WRITERS
    await Promise.all(
      Array.from({ length: WRITERS }, (_, writer) =>
        must(
          process.execPath,
          [
            path.join(import.meta.dirname, 'support', 'file-maker.ts'),
            tree,
            String(writer * each),
            String(each),
            String(FILES_EACH),
          ],
          { timeoutMs: 240_000 },
        ),
      ),
    )
    t.diagnostic(`${Math.round((1000 * FILES) / (performance.now() - startMs))} files/s`)
    const size = Math.max(...(await memory('mds')))
    t.diagnostic(`metadata server: ${Math.round(size / MIB)} MiB`)
    assert.ok(size < METADATA_SERVER_BYTES_MAX, `${size / MIB} MiB`)
  })

  it('all are listed, with the right sizes and contents', async () => {
    const found = await must('sh', ['-c', 'find . -type f | wc -l'], { cwd: tree })
    assert.equal(Number(found), FILES)
    for (let number = 0; number < DIRECTORIES; number += 9) {
      const directory = path.join(tree, `d${number}`)
      const names = new Set(fs.readdirSync(directory))
      assert.equal(names.size, FILES_EACH)
      for (let file = 0; file < FILES_EACH; file += 25) {
        const name = path.join(directory, `f${file}`)
        assert.ok(names.has(`f${file}`))
        const contents = contentsOf(number, file)
        assert.equal(fs.statSync(name).size, contents.length)
        assert.equal(fs.readFileSync(name, 'utf8'), contents)
      }
    }
    // Files are counted by a scan that takes its time.
    await until('stat counts them all', async () => {
      const { fs: counts } = await cluster.statistics()
      return (counts.files === FILES && counts.inodes === FILES + DIRECTORIES + 2) || JSON.stringify(counts)
    })
  })

  it('all are deleted, and so is what they held on the disks', { timeout: 240_000 }, async (t) => {
    const startMs = performance.now()
    await must('sh', ['-c', `ls | xargs -n 5 -P ${WRITERS} rm -r`], { cwd: tree, timeoutMs: 240_000 })
    t.diagnostic(`${Math.round((1000 * FILES) / (performance.now() - startMs))} files/s`)
    fs.rmdirSync(tree)
    await until('nothing is left', async () => {
      const { fs: counts, chunks } = await cluster.statistics()
      const left = counts.files + counts.chunks + chunks.deleting + counts.inodes - 1
      return left === 0 || JSON.stringify(counts)
    })
    const size = Math.max(...(await memory('mds')))
    t.diagnostic(`metadata server: ${Math.round(size / MIB)} MiB`)
    assert.ok(size < METADATA_SERVER_BYTES_MAX, `${size / MIB} MiB`)
  })
})
