/**
 * Two of three metadata servers are away, on real processes: what users and programs see meanwhile, and that all
 * of it goes on by itself when a majority is back: nothing lost, nothing twice, nothing given up for lost.
 * Rules L1, L2, L3 (a majority that was asleep), L4, L6, L10, L11, G1.
 */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import type { Client } from '../../core/client/api.ts'
import { connect } from '../../core/client/connect.ts'
import { type Finished, runProgram, TestCluster, until } from './support/cluster.ts'
import { MetadataServersByHand } from './support/metadata-servers.ts'
import { startWriter, type Writer } from './support/writer.ts'

const MIB = 1024 * 1024
const PAGE = 4096
const MEMBERS = ['mds1', 'mds2', 'mds3']
const HOLD_TIMEOUT_S = 4
/** Shorter than the time without a majority: what has to wait would be given up. */
const OFFLINE_TIMEOUT = '5s'
/** Longer than a round takes on a busy machine, and than a session may be silent. */
const STILL_MS = 6_000
const owner = { uid: 0, gid: 0 }

interface NoQuorum {
  readonly status: string
  readonly mds: readonly { readonly id: number; readonly status: string }[]
  readonly cs: readonly { readonly status: string }[]
}

describe('no quorum', { timeout: 240_000 }, () => {
  const ends: (() => Promise<void>)[] = []
  const data = randomBytes(8 * MIB)
  let cluster: TestCluster
  let members: MetadataServersByHand
  /** A mount that gives up after HOLD_TIMEOUT_S. */
  let limited: string
  let client: Client
  /** One asks the quorum at each fsync, the other nobody as long as its lease is confirmed. */
  let writers: readonly Writer[] = []
  let reader: fs.promises.FileHandle
  let chunksBefore: readonly number[] = []

  const chunkIds = async (): Promise<number[]> => (await cluster.chunks()).map(({ chunk }) => chunk)
  const areAllThere = () => members.areActive(MEMBERS.length)
  const readAt = async (position: number): Promise<void> => {
    const { buffer } = await reader.read(Buffer.alloc(PAGE), 0, PAGE, position)
    assert.ok(buffer.equals(data.subarray(position, position + PAGE)), `what is read at ${position}`)
  }
  /** Files that this client asks for now; each must be made once, whenever that is. */
  const makeFiles = (prefix: string): Promise<unknown> =>
    Promise.all(
      Array.from({ length: 10 }, (_, number) =>
        client.fileSystem.makeNode(1, `${prefix}${number}`, 'file', 0o600, 0, owner),
      ),
    )

  /** Rule L6: a while after the last confirmation they are held. Resolves with how far they came. */
  const stoodStill = async (): Promise<readonly number[]> => {
    let last: readonly number[] = []
    let sinceMs = performance.now()
    await until('the writers stand still', () => {
      const rounds = writers.map((writer) => writer.rounds)
      if (rounds.join() !== last.join()) sinceMs = performance.now()
      last = rounds
      return performance.now() - sinceMs > STILL_MS || rounds.join()
    })
    return last
  }

  before(async () => {
    cluster = await TestCluster.start((end) => ends.push(end), {
      metadataServers: 3,
      replicas: '3:2',
      restart: false,
      config: { 'mds.wd.offline_tout': OFFLINE_TIMEOUT },
    })
    members = new MetadataServersByHand(cluster, (end) => ends.push(end))
    limited = path.join(cluster.directory, 'limited')
    fs.mkdirSync(limited)
    const log = path.join(cluster.directory, 'log', 'limited.log')
    await cluster.cairn('mount', '-o', `hold_timeout=${HOLD_TIMEOUT_S}`, '--log', log, limited)
    ends.push(async () => {
      await runProgram('umount', ['-l', limited])
    })
    const { metadataServers, keyFile } = cluster
    client = await connect({ cluster: 'demo', metadataServers, kind: 'test', name: 'maker' }, { keyFile })
    ends.push(() => client.close())
    const file = fs.openSync(path.join(cluster.mount, 'read'), 'w')
    fs.writeSync(file, data)
    fs.fsyncSync(file)
    fs.closeSync(file)
    reader = await fs.promises.open(path.join(limited, 'read'), 'r')
    await readAt(0)
    writers = [
      startWriter(path.join(cluster.mount, 'written')),
      startWriter(path.join(cluster.mount, 'unsynced'), 'unsynced'),
    ]
    await until('the writers write', () => writers.every((writer) => writer.rounds > 2))
    chunksBefore = await chunkIds()
  })
  after(async () => {
    for (const end of ends.reverse()) await end()
  })

  it('one is dead and one hangs: who waits, who goes on, who says what', async () => {
    const master = await cluster.master()
    const [dead = '', hung = ''] = MEMBERS.filter((name) => name !== master)
    await members.end(dead)
    const hungPid = await members.signal(hung, 'SIGSTOP')

    const making = makeFiles('first')
    let made: Finished | null = null
    const directory = path.join(cluster.mount, 'directory')
    const makingDirectory = runProgram('mkdir', [directory]).then((finished) => {
      made = finished
    })
    const asked = Promise.all(
      [['stat'], ['stat', '--json'], ['list-services'], ['set-config', 'mds.gc.grace=3s'], ['get-event']].map(
        (parameters) => cluster.tryCairn(...parameters),
      ),
    )

    const held = await stoodStill()
    // A mount with a limit says so when it has passed, not before. Nobody was there to be asked, so it is not made.
    const refusedAfterMs = await timedOut(path.join(limited, 'never'))
    assert.ok(refusedAfterMs >= HOLD_TIMEOUT_S * 1000 && refusedAfterMs < 15_000, `${refusedAfterMs} ms`)
    // Without a lease nobody has to be asked: what was read before, and what was not.
    for (const position of [0, 3 * MIB, 7 * MIB]) await readAt(position)

    const refusals = await asked
    checkRefusals(refusals)
    const [stat = '', json = '', services = ''] = refusals.map(({ stdout }) => stdout)
    assert.match(stat, /^Cluster 'demo': no quorum\nMDS nodes: 1 of 3\n.* 3 CS, /)
    const { status, mds, cs } = JSON.parse(json) as NoQuorum
    assert.equal(status, 'no-quorum')
    assert.deepEqual(mds.map((one) => one.status).sort(), ['active', 'no answer', 'no answer'])
    assert.equal(cs.length, 3)
    assert.equal(services.match(/^MDS .*no answer/gm)?.length, 2, services)
    assert.equal(services.match(/^CS .*unknown/gm)?.length, 3, services)
    // Rule L6: held, and no error.
    assert.deepEqual(
      writers.map((writer) => writer.rounds),
      held,
    )
    assert.ok(writers.every((writer) => !writer.hasEnded))
    assert.equal(made, null)

    process.kill(hungPid, 'SIGCONT')
    await making
    await makingDirectory
    assert.equal((made as Finished | null)?.status, 0)
    await until('the writers go on', () =>
      writers.every(({ rounds }, index) => rounds > (held[index] ?? 0) + 2),
    )
    members.start(members.repository(dead))
    await until('all metadata servers are there again', areAllThere)
  })

  it('the master and another hang, the third is restarted meanwhile', async () => {
    const master = await cluster.master()
    const [restarted = '', hung = ''] = MEMBERS.filter((name) => name !== master)
    const pids = [await members.signal(master, 'SIGSTOP'), await members.signal(hung, 'SIGSTOP')]
    await members.end(restarted)
    members.start(members.repository(restarted))
    const making = makeFiles('second')
    const held = await stoodStill()
    for (const pid of pids) process.kill(pid, 'SIGCONT')
    await making
    await until('the writers go on', () =>
      writers.every(({ rounds }, index) => rounds > (held[index] ?? 0) + 2),
    )
    await until('all metadata servers are there again', areAllThere)
  })

  it('nothing was lost, doubled, given up or collected', async () => {
    for (const writer of writers) await writer.stop()
    for (const prefix of ['first', 'second'])
      for (let number = 0; number < 10; number++) await client.fileSystem.lookup(1, `${prefix}${number}`)
    assert.deepEqual(
      fs.readdirSync(cluster.mount).filter((name) => !/^(first|second)\d$/.test(name)),
      ['directory', 'read', 'unsynced', 'written'],
    )
    assert.ok(fs.readFileSync(path.join(cluster.mount, 'read')).equals(data))
    const chunksAfter = new Set(await chunkIds())
    // Rule G1.
    for (const chunk of chunksBefore) assert.ok(chunksAfter.has(chunk), `chunk ${chunk}`)
    // Rule L11: the time without a majority counts for nobody.
    const { cs } = await cluster.statistics()
    assert.ok(
      cs.every((server) => server.status === 'active'),
      JSON.stringify(cs),
    )
    const told = (await cluster.events()).map(({ message }) => message)
    assert.deepEqual(
      told.filter((message) => /offline|expired|lost/.test(message)),
      [],
    )
    for (const name of [...MEMBERS, 'mount', 'limited']) {
      const log = fs.readFileSync(path.join(cluster.directory, 'log', `${name}.log`), 'utf8')
      // Rule L10: nobody needed more than the log held.
      assert.doesNotMatch(log, /full resync|session expired/, name)
    }
    await cluster.allHealthy()
    await cluster.fsckClean()
    await reader.close()
    await cluster.cairn('umount', limited)
  })
})

/** Makes a directory, which must be refused by the time limit of the mount; after how long. */
async function timedOut(directory: string): Promise<number> {
  const startMs = performance.now()
  const finished = await runProgram('mkdir', [directory])
  assert.equal(finished.status, 1, finished.stderr)
  assert.match(finished.stderr, /timed out/i)
  return performance.now() - startMs
}

function checkRefusals(refusals: readonly Finished[]): void {
  const at = 'MDS#\\d at 127\\.0\\.0\\.1:\\d+'
  const expected = new RegExp(
    `^cairn: cluster 'demo' has no quorum: 1 of 3 metadata servers answers \\(${at}\\), and it takes 2; ` +
      `no answer from ${at}, ${at}\ncairn: start those .*docs/administration\\.md\n$`,
  )
  for (const refusal of refusals) {
    assert.equal(refusal.status, 5, refusal.stderr)
    assert.match(refusal.stderr, expected)
  }
}
