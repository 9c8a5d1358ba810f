/**
 * `cairn hwflush-check` as an administrator uses it: a server, and a client whose disk loses its power. A disk that
 * keeps what it flushed passes every time; one that has gone back in time is found. Guide: Checking Data Flushing.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { CAIRN, type Finished, runProgram, until } from './support/cluster.ts'
import { LoopDisk } from './support/loop-disk.ts'

const SERVER = '127.0.0.1:2515'
const THREADS = 4
const ROUNDS = 3

describe('hwflush-check', { timeout: 300_000 }, () => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cairn-hwflush-'))
  let disk: LoopDisk
  let server: ChildProcess
  let said = ''

  before(async () => {
    disk = await LoopDisk.make(directory)
    server = spawn(CAIRN, ['hwflush-check', '-l', '-a', SERVER], { stdio: ['ignore', 'pipe', 'inherit'] })
    server.stdout?.on('data', (bytes: Buffer) => {
      said += bytes.toString()
    })
    await until('the server listens', () => said.includes('Listening'))
  })
  after(async () => {
    if (server.exitCode === null) server.kill('SIGKILL')
    await disk.unmount()
    fs.rmSync(directory, { recursive: true })
  })

  const client = (...more: string[]): Promise<Finished> =>
    runProgram(
      CAIRN,
      ['hwflush-check', '-s', SERVER, '-d', disk.mountPoint, '-t', String(THREADS), ...more],
      {
        timeoutMs: 120_000,
      },
    )
  const countOf = (words: string): number => said.split(words).length - 1
  /** Where each thread went on. */
  const validIn = (output: string): number[] =>
    [...output.matchAll(/valid up to block (\d+)/g)].map((match) => Number(match[1]))

  it(`an honest disk passes ${ROUNDS} power cuts`, async () => {
    const file = path.join(disk.mountPoint, `cairn-hwflush-${THREADS - 1}`)
    let before = Array.from({ length: THREADS }, () => 0)
    for (let round = 1; round <= ROUNDS; round++) {
      const [starts, ends] = [countOf('goes on at'), countOf('is gone:')]
      const running = client()
      await until(
        'the server knows where all threads begin',
        () => countOf('goes on at') === starts + THREADS,
      )
      const content = fs.readFileSync(file)
      await until('it writes', () => !fs.readFileSync(file).equals(content))
      await disk.cutPower()
      const { status, stderr } = await running
      assert.equal(status, 1, 'the disk is gone')
      assert.match(stderr, /give the same command again/)
      await until('the server has heard all', () => countOf('is gone:') > ends)
      await disk.mountAgain()
      const { status: passed, stdout, stderr: problem } = await client('--time', '0.2')
      assert.equal(passed, 0, problem)
      const valid = validIn(stdout)
      assert.equal(valid.length, THREADS)
      assert.ok(valid.every((counter, thread) => counter > (before[thread] ?? 0)))
      before = valid
    }
    assert.doesNotMatch(said, /cache error/)
  })

  it('a disk that went back to what it held before: cache error detected!', async () => {
    const file = path.join(disk.mountPoint, 'cairn-hwflush-2')
    const old = fs.readFileSync(file)
    assert.equal((await client('--time', '0.5')).status, 0)
    fs.writeFileSync(file, old)
    const { status, stderr } = await client('--time', '0.5')
    assert.equal(status, 1)
    assert.match(stderr, /cache error detected! thread 2: the disk said that it had flushed block \d+/)
    await until('the server says so, too', () => said.includes('thread 2: cache error detected!'))
  })

  it('another disk begins anew; one without its server, or wrong options, is told what to do', async () => {
    const { status, stdout } = await client('--time', '0.2', '--new', '--json')
    assert.equal(status, 0)
    assert.equal((JSON.parse(stdout) as { counters: number[] }).counters.length, THREADS)
    const wrong = await runProgram(CAIRN, ['hwflush-check', '-d', disk.mountPoint])
    assert.equal(wrong.status, 2)
    assert.match(wrong.stderr, /hwflush-check --help/)
  })

  it('the server ends with status 1 when it has found an error', async () => {
    const ended = new Promise<number | null>((resolve) => server.once('exit', resolve))
    server.kill('SIGTERM')
    assert.equal(await ended, 1)
  })
})
