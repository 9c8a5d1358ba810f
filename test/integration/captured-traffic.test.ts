/**
 * Everything that a cluster says, captured on the wire by a program that nobody here wrote (tcpdump): its birth,
 * hosts and servers that join, reads and writes, a new password, a new key on its way to everybody, a change of
 * the master. None of it holds a password, a key or a hash of one. docs/formats/authentication.md.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { test } from 'node:test'
import { parseKeyRing } from '../../core/platform/key-ring.ts'
import { isAlive, TestCluster, until } from './support/cluster.ts'
import { MetadataServersByHand } from './support/metadata-servers.ts'
import { tracesOf } from './support/secrets.ts'

/** Names and contents travel in clear, which shows that the capture works. */
const CLEAR_NAME = 'a-file-name-that-travels-in-clear'
const CLEAR_CONTENTS = 'contents that travel in clear, too '.repeat(20)
const NEW_PASSWORD = 'a new password for all of them'

class Capture {
  readonly file: string
  readonly #child: ChildProcess
  #said = ''

  constructor(directory: string) {
    this.file = path.join(directory, 'capture.pcap')
    // -U: written as it comes; -Z root: it may write into our directory; -B: KiB that it may lag behind.
    const parameters = ['-i', 'lo', '-U', '-Z', 'root', '-B', '65536', '-w', this.file, 'tcp']
    this.#child = spawn('tcpdump', parameters, { stdio: ['ignore', 'ignore', 'pipe'] })
    this.#child.stderr?.on('data', (data) => {
      this.#said += String(data)
    })
  }

  start(): Promise<void> {
    return until('tcpdump listens', () => /listening on lo/.test(this.#said) || this.#said)
  }

  /** All bytes; throws when some were missed. */
  async end(): Promise<Buffer> {
    const { pid } = this.#child
    this.#child.kill('SIGINT')
    await until('tcpdump has ended', () => pid === undefined || !isAlive(pid))
    assert.match(this.#said, /\b0 packets dropped by kernel/)
    return fs.readFileSync(this.file)
  }
}

test('no captured byte gives away a password or a key', { timeout: 240_000 }, async (t) => {
  const ends: (() => Promise<void>)[] = []
  t.after(async () => {
    for (const end of ends.reverse()) await end()
  })
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cairn-capture-'))
  const capture = new Capture(directory)
  ends.push(async () => {
    await capture.end().catch(() => undefined)
    fs.rmSync(directory, { recursive: true, force: true })
  })
  await capture.start()
  const cluster = await TestCluster.start((end) => ends.push(end), {
    metadataServers: 3,
    chunkServers: 2,
    replicas: '2',
    restart: false,
  })
  const members = new MetadataServersByHand(cluster, (end) => ends.push(end))
  const file = fs.openSync(path.join(cluster.mount, CLEAR_NAME), 'w')
  fs.writeSync(file, CLEAR_CONTENTS)
  fs.fsyncSync(file)
  fs.closeSync(file)

  const passwordFile = path.join(cluster.directory, 'etc', 'password')
  const firstPassword = fs.readFileSync(passwordFile, 'utf8').trim()
  const newPasswordFile = path.join(directory, 'password')
  fs.writeFileSync(newPasswordFile, `${NEW_PASSWORD}\n`, { mode: 0o600 })
  await cluster.cairn('passwd', '--password-file', passwordFile, '--new-password-file', newPasswordFile)
  await cluster.cairn('auth-node', '--password-file', newPasswordFile)
  await cluster.cairn('passwd', '--rotate-key')
  const base = Number(cluster.metadataServers[0]?.split(':')[1]) + 6
  await cluster.cairn('make-mds', '-a', `127.0.0.1:${base}`, '-r', members.repository('mds4'))
  members.start(members.repository('mds4'))
  await until('a fourth takes part', () => members.areActive(4))
  await members.end(await cluster.master())
  await until('another master answers', async () => (await cluster.tryCairn('stat')).status === 0)
  assert.equal(fs.readFileSync(path.join(cluster.mount, CLEAR_NAME), 'utf8'), CLEAR_CONTENTS)

  const ring = parseKeyRing(fs.readFileSync(cluster.keyFile, 'utf8'))
  assert.deepEqual(ring.versions, [1, 2])
  const bytes = await capture.end()
  t.diagnostic(`${bytes.length} bytes were captured`)
  const nameCount = bytes.toString('latin1').split(CLEAR_NAME).length - 1
  assert.ok(nameCount >= 3, `the name passes from the mount and to two members: ${nameCount} times`)
  assert.ok(bytes.includes(CLEAR_CONTENTS.slice(0, 200)), 'what is written passes')
  const secrets: Buffer[] = [Buffer.from(firstPassword), Buffer.from(NEW_PASSWORD)]
  for (const version of ring.versions) secrets.push(ring.get(version) ?? Buffer.alloc(0))
  assert.deepEqual(
    secrets.map((secret) => tracesOf(secret).filter((trace) => bytes.includes(trace))),
    secrets.map(() => []),
  )
})
