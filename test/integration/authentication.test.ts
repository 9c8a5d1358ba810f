/**
 * Authentication on real processes and real sockets: what travels gives nothing away, and who does not have the
 * key, or repeats, changes or makes up what he says, is refused. docs/formats/authentication.md.
 */
import assert from 'node:assert/strict'
import fs from 'node:fs'
import path from 'node:path'
import { after, before, describe, it } from 'node:test'
import { connectAdmin } from '../../core/cli/admin.ts'
import { EtcDirectory } from '../../core/cli/etc.ts'
import { KeyRing, parseKeyRing } from '../../core/platform/key-ring.ts'
import { writeKeyFile } from '../../core/platform/node/key-file.ts'
import { loadPasswordExchange } from '../../core/platform/node/opaque-password.ts'
import { bytesOf, type Frame, framesOf, unbundled } from '../../core/wire/authentication/keyed-pair.ts'
import { decodeMessage, encodeMessage } from '../../core/wire/codec.ts'
import { FrameKind } from '../../core/wire/frame.ts'
import { TAG_BYTES } from '../../core/wire/limits.ts'
import { CAIRN, type Finished, runProgram, TestCluster } from './support/cluster.ts'
import { conversation, RecordingProxy } from './support/recording-proxy.ts'
import { COMMON_BYTES, tracesOf } from './support/secrets.ts'

/** Each is a connection that is refused late. */
const FLIP_EVERY_BYTES = 7

describe('authentication', () => {
  let cluster: TestCluster
  let proxy: RecordingProxy
  let base = 0
  let passwordFile = ''
  const ends: (() => Promise<void>)[] = []

  before(async () => {
    cluster = await TestCluster.start((end) => ends.push(end), {
      chunkServers: 1,
      replicas: '1',
      mount: false,
    })
    base = Number(cluster.metadataServers[0]?.split(':')[1])
    proxy = await RecordingProxy.start(base)
    passwordFile = path.join(cluster.directory, 'etc', 'password')
  })

  after(async () => {
    await proxy.close()
    for (const end of ends) await end()
  })

  const etcOf = (host: string): string => path.join(cluster.directory, 'guests', host)
  const keyFileOf = (host: string): string => path.join(etcOf(host), 'clusters', 'demo', 'auth_digest.key')

  /** A host that knows the cluster through the proxy. */
  function cairn(host: string, ...parameters: string[]): Promise<Finished> {
    const directory = path.dirname(keyFileOf(host))
    fs.mkdirSync(directory, { recursive: true })
    fs.writeFileSync(path.join(directory, 'bs.list'), `127.0.0.1:${proxy.port}\n`)
    return runProgram(CAIRN, ['--etc', etcOf(host), '-c', 'demo', ...parameters])
  }

  async function done(host: string, ...parameters: string[]): Promise<void> {
    const finished = await cairn(host, ...parameters)
    assert.equal(finished.status, 0, `cairn ${parameters.join(' ')}: ${finished.stderr}`)
  }

  function withKey(host: string, ring: KeyRing): void {
    writeKeyFile(keyFileOf(host), ring)
  }

  const clusterRing = (): KeyRing => parseKeyRing(fs.readFileSync(cluster.keyFile, 'utf8'))
  const sent = (index: number): Buffer => Buffer.concat(proxy.recordings[index]?.toServer ?? [])

  it('a host without a key is told so in one line and the next step: exit status 4', async () => {
    const repository = path.join(cluster.directory, 'cs1')
    for (const parameters of [
      ['stat'],
      ['cs', '-r', repository],
      ['mds', '-r', path.join(cluster.directory, 'mds1')],
    ]) {
      const finished = await cairn('stranger', ...parameters)
      assert.equal(finished.status, 4, finished.stderr)
      assert.match(finished.stderr, /^cairn: .*not authenticated.*\ncairn: .*cairn -c demo auth-node\n$/)
    }
  })

  it('the traffic of auth-node, passwd, rotation and sessions holds no secret, and no hash of one', async () => {
    const password = fs.readFileSync(passwordFile, 'utf8').trim()
    const changed = path.join(cluster.directory, 'changed-password')
    fs.writeFileSync(changed, 'another password, also long\n', { mode: 0o600 })
    await done('guest', 'auth-node', '--password-file', passwordFile)
    assert.equal(fs.statSync(keyFileOf('guest')).mode & 0o777, 0o600)
    await done('guest', 'stat')
    await done('guest', 'auth-node', '--password-file', passwordFile)
    await done('guest', 'passwd', '--password-file', passwordFile, '--new-password-file', changed)
    await done('guest', 'auth-node', '--password-file', changed)
    await done('guest', 'passwd', '--password-file', changed, '--new-password-file', passwordFile)
    await done('guest', 'passwd', '--rotate-key')
    await done('guest', 'stat')
    const ring = parseKeyRing(fs.readFileSync(keyFileOf('guest'), 'utf8'))
    assert.deepEqual(ring.versions, [1, 2])
    assert.deepEqual(clusterRing().versions, [1, 2], 'servers that were connected have it too')
    const secrets: Buffer[] = [Buffer.from(password), Buffer.from('another password, also long')]
    for (const version of ring.versions) secrets.push(ring.get(version) ?? Buffer.alloc(0))
    const { bytes } = proxy
    assert.ok(bytes.length > 5000, `only ${bytes.length} bytes were recorded`)
    for (const secret of secrets)
      for (const trace of tracesOf(secret)) assert.equal(bytes.includes(trace), false)
  })

  it('a script with the recording and the right password cannot confirm it', async () => {
    const password = fs.readFileSync(passwordFile, 'utf8').trim()
    const exchanges = proxy.recordings.flatMap(({ toServer, toClient }) => {
      // connections that need no key have no tags; with others nothing is looked for
      const isPlain = framesOf(Buffer.concat(toClient)).every(({ kind }) => kind !== FrameKind.authentication)
      if (!isPlain) return []
      const asked = unbundled(framesOf(Buffer.concat(toServer)), 0).filter(
        ({ kind }) => kind === FrameKind.call,
      )
      const answers = unbundled(framesOf(Buffer.concat(toClient)), 0).filter(
        ({ kind }) => kind === FrameKind.result,
      )
      const [start, finish] = asked.map((frame) => callOf(frame)) as (
        | { method: string; params: unknown }
        | undefined
      )[]
      if (start?.method !== 'auth.start' || answers[0] === undefined) return []
      const { request } = start.params as { request: string }
      const { response } = decodeMessage(answers[0].meta) as { response: string }
      const { finish: proof } = (finish?.params ?? { finish: '' }) as { finish: string }
      return [{ request, response, finish: proof }]
    })
    assert.equal(exchanges.length, 5)
    const opaque = await loadPasswordExchange()
    for (const { response } of exchanges) {
      const { state } = opaque.begin(password)
      assert.equal(opaque.prove(state, response, password, clusterRing().clusterUuid), null)
    }
    // The first two were made with the same password, on the same host.
    const [first, second] = exchanges.map((one) =>
      Buffer.concat([one.request, one.response, one.finish].map((text) => Buffer.from(text, 'base64url'))),
    )
    assert.ok(first !== undefined && second !== undefined && first.length > 400)
    for (let at = 0; at + COMMON_BYTES <= first.length; at++)
      assert.equal(second.includes(first.subarray(at, at + COMMON_BYTES)), false, `bytes from ${at}`)
  })

  it('a recorded session that is played again is refused, and nothing of it is served', async () => {
    const before = proxy.recordings.length
    await done('guest', 'stat')
    const recorded = framesOf(sent(before))
    // All at once, and step by step: hello and proof only.
    const all = framesOf(await conversation(base + 1, bytesOf(recorded)))
    assert.equal(refusalOf(all), 'BAD_MESSAGE')
    const answers = framesOf(await conversation(base + 1, bytesOf(recorded.slice(0, 2))))
    assert.equal(refusalOf(answers), 'WRONG_KEY')
    for (const one of [all, answers])
      assert.deepEqual(
        one.map((answer) => answer.kind),
        [FrameKind.welcome, FrameKind.authentication, FrameKind.refuse],
      )
  })

  it('a request without a proof is refused at every port, whatever role it claims', async () => {
    const { cs } = await cluster.statistics()
    const chunkServerPort = Number(cs[0]?.address.split(':')[1])
    const identity = { clusterName: 'demo', clusterUuid: '', session: 0, name: 'attacker' }
    for (const [port, first] of [
      [base + 1, frame(FrameKind.call, ['admin.stat', {}])],
      [base + 1, frame(FrameKind.call, ['mds.look', {}])],
      [base, frame(FrameKind.notify, ['raft.step', { head: {}, terms: [], entries: [] }])],
      [chunkServerPort, frame(FrameKind.dataRequest, Buffer.alloc(64))],
      [chunkServerPort, frame(FrameKind.call, ['cs.shutdown', {}])],
    ] as const) {
      for (const role of ['client', 'cs', 'mds', 'admin', 'observer', '']) {
        for (const features of [0, 1]) {
          const hello = frame(FrameKind.hello, { versions: [1], features, role, ...identity })
          const answers = framesOf(await conversation(port, bytesOf([hello, first])))
          const isOther = port === base && role !== 'mds'
          // Data that comes before the proof gets no word at all.
          const early = first.kind === FrameKind.dataRequest ? '' : 'BAD_MESSAGE'
          const expected = features === 0 ? 'KEY_MISSING' : isOther ? 'REFUSED' : early
          assert.equal(refusalOf(answers), expected, `port ${port}, role ${role}, features ${features}`)
          const kinds = answers.map(({ kind }) => kind)
          for (const kind of [FrameKind.result, FrameKind.error, FrameKind.dataAnswer])
            assert.equal(kinds.includes(kind), false)
        }
      }
    }
  })

  it('the role auth may do nothing but prove the password', async () => {
    const hello = frame(FrameKind.hello, {
      ...{ versions: [1], features: 0, role: 'auth', clusterName: 'demo', clusterUuid: '', session: 0 },
      name: 'attacker',
    })
    const methods = [
      'admin.stat',
      'admin.shutdown',
      'session.open',
      'key.rotate',
      'cs.register',
      'fs.getattr',
    ]
    const calls = methods.map((method, index) => ({
      ...frame(FrameKind.call, [method, {}]),
      requestId: index + 1,
    }))
    const late = { ...frame(FrameKind.call, ['auth.replace', { sealed: Buffer.alloc(50) }]), requestId: 99 }
    const answers = framesOf(
      await conversation(
        base + 1,
        bytesOf([hello, ...calls, late]),
        (bytes) => framesOf(bytes).length === calls.length + 2,
      ),
    )
    const errors = answers.filter((answer) => answer.kind === FrameKind.error)
    assert.deepEqual(
      errors.slice(0, methods.length).map((answer) => (decodeMessage(answer.meta) as { code: string }).code),
      methods.map(() => 'UNKNOWN_METHOD'),
    )
    assert.equal(errors.length, methods.length + 1)
    assert.equal(
      answers.some((answer) => answer.kind === FrameKind.result),
      false,
    )
  })

  it('one bit that is flipped on the way ends the session', async () => {
    const before = proxy.recordings.length
    await done('guest', 'stat')
    const frames = framesOf(sent(before))
    const callIndex = frames.findIndex((one) => one.kind === FrameKind.bundle)
    const firstCallAt = bytesOf(frames.slice(0, callIndex)).length
    let target = firstCallAt - 10
    proxy.alter = (piece, { at, toServer }) => {
      const index = target - at
      if (!toServer || index < 0 || index >= piece.length) return piece
      const altered = Buffer.from(piece)
      altered[index] = (altered[index] ?? 0) ^ 4
      // Once: the command tries again when its connection broke. Whoever changes a frame can mend its checksum.
      target = -1
      return bytesOf(framesOf(altered))
    }
    const proof = await cairn('guest', 'stat')
    assert.equal(proof.status, 4, proof.stderr)
    assert.match(proof.stderr, /proof of the cluster key does not verify/)
    target = firstCallAt + 40
    const next = proxy.recordings.length
    await done('guest', 'stat')
    assert.equal(target, -1)
    assert.equal(proxy.recordings.length, next + 2, 'the first connection was closed')
    const answered = unbundled(framesOf(Buffer.concat(proxy.recordings[next]?.toClient ?? [])), TAG_BYTES)
    assert.equal(
      answered.some((one) => one.kind === FrameKind.result),
      false,
    )
    proxy.alter = (piece) => piece
  })

  it('a bit that is flipped anywhere, in either direction, leaves nothing that is served', async () => {
    const etc = new EtcDirectory(etcOf('guest'))
    const servers = [{ host: '127.0.0.1', port: proxy.port }]
    /** One connection: handshake and the opening of a session. */
    const attempt = async (): Promise<void> => {
      const admin = await connectAdmin('demo', servers, etc, 0)
      await admin.close()
    }
    const honest = proxy.recordings.length
    await attempt()
    const { toServer, toClient } = proxy.recordings[honest] ?? { toServer: [], toClient: [] }
    const targets = [
      ...targetsIn(framesOf(Buffer.concat(toServer)), true, FrameKind.bundle),
      ...targetsIn(framesOf(Buffer.concat(toClient)), false, FrameKind.bundle),
    ]
    assert.ok(targets.length > 60, `${targets.length} bits`)
    const first = proxy.recordings.length
    const seenCounts = new Map<string, number>()
    let flippedCount = 0
    proxy.alter = (piece, { connection, toServer: isToServer }) => {
      const target = targets[connection - first]
      if (target === undefined || target.toServer !== isToServer) return piece
      const frames = framesOf(piece)
      const key = `${connection}`
      const seenCount = seenCounts.get(key) ?? 0
      seenCounts.set(key, seenCount + frames.length)
      const { meta } = frames[target.frame - seenCount] ?? {}
      if (meta === undefined) return piece
      const at = target.byte % meta.length
      meta[at] = (meta[at] ?? 0) ^ (1 << (target.byte % 8))
      flippedCount += 1
      return bytesOf(frames)
    }
    const outcomes = await Promise.allSettled(targets.map(attempt))
    proxy.alter = (piece) => piece
    assert.equal(flippedCount, targets.length)
    assert.deepEqual(
      outcomes.filter(({ status }) => status === 'fulfilled'),
      [],
    )
    for (const [index, target] of targets.entries()) {
      const answers = unbundled(
        framesOf(Buffer.concat(proxy.recordings[first + index]?.toClient ?? [])),
        TAG_BYTES,
      )
      const isServed = answers.some(({ kind }) => kind === FrameKind.result)
      if (target.toServer) assert.equal(isServed, false, JSON.stringify(target))
    }
  })

  it('another key, and the key of another cluster, each have their own message', async () => {
    const { clusterUuid } = clusterRing()
    withKey('forger', new KeyRing(clusterUuid, [[2, Buffer.alloc(32, 7)]]))
    const forged = await cairn('forger', 'stat')
    assert.equal(forged.status, 4, forged.stderr)
    assert.match(forged.stderr, /proof of the cluster key does not verify\n.*auth-node/)
    withKey('late', new KeyRing(clusterUuid, [[9, Buffer.alloc(32, 7)]]))
    const late = await cairn('late', 'stat')
    assert.equal(late.status, 4, late.stderr)
    assert.match(late.stderr, /version 9 of the cluster key, the mds has 1 and 2\n.*auth-node/)
    withKey('foreign', new KeyRing('f'.repeat(32), [[1, Buffer.alloc(32, 7)]]))
    const foreign = await cairn('foreign', 'stat')
    assert.equal(foreign.status, 4, foreign.stderr)
    assert.match(foreign.stderr, /cluster key of this host is of another cluster.*\n.*bs\.list/)
  })

  it('the old key is retired; servers that restart go on with the new one', async () => {
    await done('guest', 'passwd', '--retire-key')
    assert.deepEqual(clusterRing().versions, [2])
    await cluster.signal(await cluster.master(), 'SIGKILL')
    await cluster.signal('cs1', 'SIGKILL')
    await cluster.allHealthy()
    await done('guest', 'stat')
    await done('guest', 'auth-node', '--password-file', passwordFile)
    const { values } = JSON.parse((await cairn('guest', 'get-config', '--json')).stdout) as { values: object }
    assert.deepEqual(
      Object.keys(values).filter((name) => /authentication|verifier|password/.test(name)),
      [],
    )
  })

  it('wrong passwords are events, and are slowed down', async () => {
    const wrong = path.join(cluster.directory, 'wrong-password')
    fs.writeFileSync(wrong, 'not the password\n', { mode: 0o600 })
    const statuses: string[] = []
    // The pauses grow until one is longer than a command takes.
    for (let attempt = 0; attempt < 10 && !/too many/.test(statuses.at(-1) ?? ''); attempt++) {
      const finished = await cairn('guesser', 'auth-node', '--password-file', wrong)
      assert.equal(finished.status, 4, finished.stderr)
      statuses.push(finished.stderr)
    }
    assert.match(statuses[0] ?? '', /this is not the password of the cluster/)
    assert.match(statuses.at(-1) ?? '', /too many wrong passwords\ncairn: try again in \d+ s/)
    assert.equal(fs.existsSync(keyFileOf('guesser')), false)
    const events = (await cairn('guest', 'get-event', '-n', '100')).stdout
    assert.match(events, /Wrong password from host \S+ \(127\.0\.0\.1\)/)
    assert.match(events, /The cluster key has version 2/)
    assert.match(events, /The password was changed from host/)
  })
})

/** Bytes go as they are. */
function frame(kind: number, value: unknown): Frame {
  const meta = Buffer.isBuffer(value) ? value : encodeMessage(value)
  return { kind, requestId: 1, meta, payload: Buffer.alloc(0) }
}

interface Target {
  readonly toServer: boolean
  readonly frame: number
  readonly byte: number
}

/** Bits of all frames up to the first of that kind. */
function targetsIn(frames: readonly Frame[], toServer: boolean, lastKind: number): Target[] {
  const last = frames.findIndex(({ kind }) => kind === lastKind)
  return frames.slice(0, last + 1).flatMap(({ meta }, index) =>
    Array.from({ length: Math.ceil(meta.length / FLIP_EVERY_BYTES) }, (_, step) => ({
      ...{ toServer, frame: index, byte: step * FLIP_EVERY_BYTES },
    })),
  )
}

function callOf({ meta }: Frame): { method: string; params: unknown } {
  try {
    const [method, params] = decodeMessage(meta) as [string, unknown]
    return { method, params }
  } catch {
    // With a tag behind it: a session with the key.
    return { method: '', params: null }
  }
}

function refusalOf(frames: readonly Frame[]): string {
  const refusal = frames.find((one) => one.kind === FrameKind.refuse)
  return refusal === undefined ? '' : (decodeMessage(refusal.meta) as { code: string }).code
}
