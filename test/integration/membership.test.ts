/**
 * Changing a quorum of real metadata servers, command by command: members come, move to other addresses, and
 * leave, one by one while the cluster serves, or all at once while it is stopped; and what is refused.
 * Guide: Configuring MDS Servers, Changing Parallels Cloud Storage Cluster Network.
 */
import assert from 'node:assert/strict'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { connect } from '../../core/client/connect.ts'
import { HIGHEST_LEVEL } from '../../core/metadata/state/feature-levels.ts'
import { until } from './support/programs.ts'
import { Members } from './support/members.ts'

/** Hosts a to e; any pair of ports will do. */
const at = (number: number, port = 4110): string => `127.0.71.${number}:${port}`

describe('changing a quorum', { timeout: 180_000 }, () => {
  const ends: (() => Promise<void>)[] = []
  let members: Members

  async function addressesOf(host: string): Promise<Record<number, string>> {
    const { mds } = await members.statistics(host)
    return Object.fromEntries(mds.map(({ id, address }) => [id, address]))
  }

  async function masterOf(host: string): Promise<number> {
    return (await members.statistics(host)).mds.find(({ master }) => master)?.id ?? 0
  }

  before(async () => {
    members = new Members((end) => ends.push(end))
    await members.found('a', at(1))
    await until('the first one serves', async () => {
      const { status, stderr } = await members.run('a', 'stat')
      return status === 0 || stderr
    })
    await Promise.all(['b', 'c'].map((host) => members.authenticate(host, at(1))))
    // One after the other: the first is MDS#2.
    await members.join('b', at(2))
    await members.join('c', at(3))
    await members.allActive('a', 3)
  })
  after(async () => {
    for (const end of ends.reverse()) await end()
  })

  it('a master that stops in order hands over in well under a second', async () => {
    const keyFile = members.etc('a').keyFile('shop')
    const client = await connect(
      { cluster: 'shop', metadataServers: [at(1), at(2), at(3)], kind: 'test', name: 'pause' },
      { keyFile },
    )
    const master = await masterOf('b')
    const host = 'abc'[master - 1] as string
    let longestMs = 0
    let madeCount = 0
    let isOver = false
    const making = (async () => {
      while (!isOver) {
        const sinceMs = performance.now()
        await client.fileSystem.makeNode(1, `f${madeCount}`, 'file', 0o600, 0, { uid: 0, gid: 0 })
        longestMs = Math.max(longestMs, performance.now() - sinceMs)
        madeCount++
      }
    })()
    await until('names are made', () => madeCount > 50)
    longestMs = 0
    const stopping = members.stop(host)
    await until('another serves', async () => (await masterOf('b')) !== master)
    const before = madeCount
    await until('names are made again', () => madeCount > before + 50)
    isOver = true
    await Promise.all([making, stopping])
    await client.close()
    process.stderr.write(`hand-over: a pause of ${Math.round(longestMs)} ms\n`)
    assert.ok(longestMs < 1_000, `${longestMs} ms`)
    members.start(host)
    await members.allActive('b', 3)
  })

  it('a second cluster of the name, and directories that are taken, are refused', async () => {
    const repository = members.repository('a')
    const [second, taken] = await Promise.all([
      members.tryFound('x', at(9), members.repository('x'), '-b', at(2)),
      members.run('b', 'make-mds', '-a', at(9), '-r', repository),
    ])
    assert.equal(second.status, 4, second.stderr)
    assert.match(second.stderr, /there is a cluster 'shop' already: .* answers at 127\.0\.71\.2:4110/)
    assert.ok(!fs.existsSync(members.repository('x')))
    assert.equal(taken.status, 4, taken.stderr)
    assert.match(taken.stderr, /holds a metadata server already/)
  })

  it('one member moves while the others serve', async () => {
    const running = await members.run('b', 'configure-mds', '-r', members.repository('b'), '-a', at(12))
    assert.equal(running.status, 4, 'it runs')
    assert.match(running.stderr, /in use by process \d+/)
    await members.stop('b')
    const moved = await members.cairn('b', 'configure-mds', '-r', members.repository('b'), '-a', at(12, 5000))
    assert.match(moved.stdout, /MDS#2 listens on 127\.0\.71\.12:5000 from its next start on/)
    members.start('b')
    await until('its address is known', async () => (await addressesOf('a'))[2] === at(12, 5000))
    await members.allActive('a', 3)
    const events = (await members.events('a')).map(({ message }) => message)
    assert.ok(events.includes(`MDS#2 moved from ${at(2)} to ${at(12, 5000)}`), events.join('\n'))
  })

  it('make-mds again, when it was interrupted: an id that nobody has used is given up', async () => {
    const [host = '', port = ''] = at(8).split(':')
    const add = (name: string) =>
      members.ask('b', ({ metadata }) =>
        metadata.call('mds.add', { host, port: Number(port), name, level: HIGHEST_LEVEL }),
      )
    const make = (directory: string) =>
      members.run('b', 'make-mds', '-a', at(8), '-r', members.path('b', directory))
    // The answer was lost, or the process ended before it wrote its directory.
    const { member: lost } = await add(os.hostname())
    await assert.rejects(add('another host'), { code: 'REFUSED' })
    const first = await make('first')
    assert.match(first.stdout, new RegExp(`MDS#${lost + 1}\\b`), first.stderr)
    const second = await make('second')
    assert.match(second.stdout, new RegExp(`MDS#${lost + 2}\\b`), second.stderr)
    const gone = (await members.events('a')).filter(({ code }) => code === 'MDS_REMOVED')
    assert.deepEqual(
      gone.map(({ message }) => message),
      [lost, lost + 1].map((id) => `MDS#${id} is removed`),
    )
    const early = await members.run('b', 'mds', '-r', members.path('b', 'first'))
    assert.equal(early.status, 6, early.stderr)
    await members.cairn('b', 'rm-mds', String(lost + 2))
  })

  it('all of a stopped cluster move at once, two of them to the place of the other', async () => {
    await Promise.all(['a', 'b', 'c'].map((host) => members.stop(host)))
    const moves = ['-n', `1@${at(3)}`, '-n', `2@${at(22)}`, '-n', `3@${at(1)}`]
    const unknown = await members.run('a', 'configure-mds', '-r', members.repository('a'), '-n', `7@${at(9)}`)
    assert.equal(unknown.status, 3, unknown.stderr)
    await Promise.all(
      ['a', 'b', 'c'].map(async (host) => {
        await members.cairn(host, 'configure-mds', '-r', members.repository(host), ...moves)
        members.start(host)
      }),
    )
    await members.allActive('a', 3)
    await until('the register says the same', async () => {
      const seen = await addressesOf('b')
      return (seen[1] === at(3) && seen[2] === at(22) && seen[3] === at(1)) || JSON.stringify(seen)
    })
    await until('the hints are of no more use', () =>
      ['a', 'b', 'c'].every((host) => !fs.existsSync(path.join(members.repository(host), 'moved.json'))),
    )
  })

  it('a member that is removed ends and says why; what would lose the majority is refused', async () => {
    const master = await masterOf('a')
    const [gone, away] = [1, 2, 3].filter((id) => id !== master) as [number, number]
    const hostOf = (id: number): string => 'abc'[id - 1] as string
    const from = hostOf(master)
    await members.stop(hostOf(away))
    const refused = await members.run(from, 'rm-mds', String(gone))
    assert.equal(refused.status, 4, refused.stderr)
    assert.match(refused.stderr, /1 of 2 metadata servers.*no majority/)
    assert.match(refused.stderr, new RegExp(`MDS#${away}`), 'what to do names who is away')
    // It is away while it is removed, and hears it when it comes back.
    const removed = await members.cairn(from, 'rm-mds', String(away))
    assert.match(removed.stderr, /2 metadata servers survive no more failures than 1/)
    const back = members.start(hostOf(away))
    await until('the one that was away ends', back.hasEnded)
    assert.equal(back.status(), 6)
    assert.match(back.output(), new RegExp(`MDS#${away} was removed from cluster 'shop'`))
    // It runs while it is removed, and is the master.
    const server = members.running(from)
    await members.cairn(hostOf(gone), 'rm-mds', String(master))
    await until('the one that ran ends', server.hasEnded)
    assert.equal(server.status(), 6)
    const last = await members.run(hostOf(gone), 'rm-mds', String(gone))
    assert.equal(last.status, 4)
    assert.match(last.stderr, /the only metadata server/)
    assert.equal(await masterOf(hostOf(gone)), gone)
  })
})
