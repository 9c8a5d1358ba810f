// Proves with real processes and disks that a snapshot taken while a program writes is what the file contained at one
// moment, whatever dies meanwhile; that clones and rollbacks have that content; that snapshots go in any order, and
// that the space comes back.
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { TestCluster, until } from './support/cluster.ts'
import { lastOf } from './support/ordered-writer.ts'

const FILE_BYTES = 200 * 1024 * 1024

class Writer {
  last = 0
  status: number | null = null
  readonly #process: ChildProcess

  constructor(file: string) {
    const program = path.join(import.meta.dirname, 'support', 'ordered-writer.ts')
    this.#process = spawn(process.execPath, [program, file], { stdio: ['pipe', 'pipe', 'inherit'] })
    this.#process.stdout?.on('data', (text: Buffer) => {
      for (const line of String(text).split('\n')) if (line !== '') this.last = Number(line)
    })
    this.#process.on('exit', (status) => {
      this.status = status
    })
  }

  async goesOn(): Promise<void> {
    const { last } = this
    await until('the writer goes on', () => this.last > last + 50 || `${this.last}`)
  }

  async stop(): Promise<void> {
    this.#process.stdin?.end()
    await until('the writer ends', () => this.status !== null)
    assert.equal(this.status, 0)
  }

  kill(): void {
    this.#process.kill('SIGKILL')
  }
}

function chunkFiles(cluster: TestCluster): string[] {
  return fs
    .readdirSync(cluster.directory)
    .filter((name) => /^cs\d+$/.test(name))
    .flatMap((name) =>
      fs
        .readdirSync(path.join(cluster.directory, name, 'chunks'), { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => path.join(name, entry.name)),
    )
}

test('snapshots of a file that is being written, while chunk servers die', {
  timeout: 400_000,
}, async (t) => {
  const cluster = await TestCluster.start((end) => t.after(end), {
    ...{ chunkServers: 4, replicas: '3:2' },
    config: { 'mds.gc.grace': '1s' },
  })
  const file = path.join(cluster.mount, 'file')
  fs.writeFileSync(file, '')
  fs.truncateSync(file, FILE_BYTES)
  const writer = new Writer(file)
  t.after(() => writer.kill())
  const taken: { name: string; clone: string; last: number }[] = []
  for (let round = 1; round <= 4; round++) {
    await writer.goesOn()
    if (round === 2 || round === 4) await cluster.signal(`cs${round}`, 'SIGKILL')
    const before = writer.last
    await cluster.cairn('snapshot', 'create', file, `s${round}`)
    const after = writer.last
    const clone = path.join(cluster.mount, `clone${round}`)
    await cluster.cairn('snapshot', 'clone', file, clone, `s${round}`)
    const last = lastOf(clone)
    // One more may have been acknowledged than was told.
    assert.ok(last >= before && last <= after + 1, `${before} <= ${last} <= ${after}`)
    taken.push({ name: `s${round}`, clone, last })
  }
  await writer.goesOn()
  await writer.stop()
  const end = lastOf(file)
  assert.ok(end >= writer.last)
  const listed = JSON.parse(await cluster.cairn('snapshot', 'list', file, '--json')) as {
    snapshots: { name: string; size: number; ready: boolean }[]
  }
  assert.deepEqual(
    listed.snapshots.map(({ name, size, ready }) => [name, size, ready]),
    taken.map(({ name }) => [name, FILE_BYTES, true]),
  )
  for (const { clone, last } of taken) assert.equal(lastOf(clone), last)
  await cluster.allHealthy()
  await cluster.fsckClean()

  await t.test('a clone is a file of its own', () => {
    const [first, second] = taken
    if (first === undefined || second === undefined) throw new Error('no clones')
    fs.appendFileSync(first.clone, 'more')
    const descriptor = fs.openSync(first.clone, 'r+')
    fs.writeSync(descriptor, Buffer.from('half a page'), 0, 11, 100)
    fs.fsyncSync(descriptor)
    fs.closeSync(descriptor)
    const begin = Buffer.alloc(4096)
    const reader = fs.openSync(first.clone, 'r')
    fs.readSync(reader, begin, 0, 4096, 0)
    fs.closeSync(reader)
    assert.equal(begin.toString('latin1', 100, 111), 'half a page')
    assert.equal(
      begin.readUInt32LE(96),
      begin.readUInt32LE(112),
      'the rest of the page is that of the parent',
    )
    assert.equal(lastOf(file), end)
    assert.equal(lastOf(second.clone), second.last)
  })

  await t.test('rolled back, and written again', async () => {
    const refused = await cluster.tryCairn('snapshot', 'rollback', file, 's3')
    assert.equal(refused.status, 4)
    await cluster.cairn('snapshot', 'rollback', '-y', file, 's3')
    assert.equal(lastOf(file), taken[2]?.last)
    const again = new Writer(file)
    await again.goesOn()
    await again.stop()
    assert.ok(lastOf(file) >= 50)
    assert.equal(lastOf(taken[2]?.clone ?? ''), taken[2]?.last)
  })

  await t.test(
    'deleted in any order, the file too; what is left is right, and the space comes back',
    async () => {
      const kept = lastOf(file)
      for (const number of [2, 4, 1]) {
        await cluster.cairn('snapshot', 'delete', '-y', file, `s${number}`)
        if (number === 4) await cluster.signal('cs1', 'SIGKILL')
        assert.equal(lastOf(file), kept)
        for (const { clone, last } of taken.slice(1)) assert.equal(lastOf(clone), last)
      }
      fs.unlinkSync(file)
      const { snapshots } = JSON.parse(await cluster.cairn('snapshot', 'list', '--json')) as {
        snapshots: { id: number; name: string }[]
      }
      assert.deepEqual(
        snapshots.map(({ name }) => name),
        ['s3'],
      )
      const copy = path.join(cluster.mount, 'copy')
      const id = String(snapshots[0]?.id)
      await cluster.cairn('snapshot', 'clone', '--id', id, file, copy)
      assert.equal(lastOf(copy), taken[2]?.last)
      await cluster.cairn('snapshot', 'delete', '-y', '--id', id)
      await cluster.allHealthy()
      await cluster.fsckClean()
      for (const { clone } of taken) fs.unlinkSync(clone)
      fs.unlinkSync(copy)
      await until(
        'the space comes back',
        () => chunkFiles(cluster).length === 0 || chunkFiles(cluster).join(' '),
      )
    },
  )
})
