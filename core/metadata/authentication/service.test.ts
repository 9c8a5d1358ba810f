/** Passwords and keys on a metadata server: who gets the key, who may change what, when an old key ends. */
import { deepEqual, equal, match, notEqual, ok, rejects } from 'node:assert/strict'
import { test } from 'node:test'
import { codeOf } from '../../base/errors.ts'
import { KeyRing, MemoryKeyStore, parseKeyRing } from '../../platform/key-ring.ts'
import { silentLogger } from '../../platform/logger.ts'
import { loadPasswordExchange } from '../../platform/node/opaque-password.ts'
import { SeededRandom } from '../../testing/simulation/seeded-random.ts'
import { SimulatedClock } from '../../testing/simulation/simulated-clock.ts'
import {
  SimulatedHardState,
  SimulatedHardStateContents,
} from '../../testing/simulation/simulated-hard-state.ts'
import { SimulatedStore, SimulatedStoreContents } from '../../testing/simulation/simulated-store.ts'
import { PasswordSession } from '../../wire/authentication/password-session.ts'
import type { PasswordMethods } from '../../wire/messages/authentication.ts'
import type { Handlers, Peer } from '../../wire/types.ts'
import { EventRecorder } from '../control/servers/event-recorder.ts'
import { Master } from '../control/servers/master.ts'
import type { RaftLog, RaftLogEvents } from '../quorum/raft-log.ts'
import { createCluster, openRepository } from '../server/cluster-repository.ts'
import { sealVerifier } from './record.ts'
import { AuthenticationService } from './service.ts'

const PASSWORD = 'the first password'
const exchange = await loadPasswordExchange()
const random = new SeededRandom(7)
const hasCode = (code: string) => (error: unknown) => codeOf(error) === code

function fail(error: Error): never {
  throw error
}

/** What the service sees of a connection. */
class FakePeer {
  readonly remote: string
  handlers: Handlers<PasswordMethods> | null = null
  isClosed = false
  readonly #closers: (() => void)[] = []

  constructor(host = '10.0.0.1') {
    this.remote = `${host}:4711`
  }

  onClosed(callback: () => void): () => void {
    this.#closers.push(callback)
    return () => {}
  }

  get asPeer(): Peer {
    return this as unknown as Peer
  }

  serve(_table: unknown, handlers: Handlers<PasswordMethods>): void {
    this.handlers = handlers
  }

  close(): void {
    this.isClosed = true
    for (const closer of this.#closers.splice(0)) closer()
  }
}

class Scene {
  readonly clock = new SimulatedClock()
  readonly contents = new SimulatedStoreContents()
  readonly hardState = new SimulatedHardStateContents()
  /** Of the server that runs. */
  #log: RaftLog | null = null
  keys = new MemoryKeyStore(new KeyRing('0'.repeat(32), [[1, Buffer.alloc(32, 1)]]))
  uuid = ''

  static async create(): Promise<Scene> {
    const scene = new Scene()
    const { uuid } = await scene.clock.settled(
      createCluster(
        { ...scene.parts(), onFatal: fail },
        {
          name: 'alpha',
          authentication: (clusterUuid) => {
            const ring = new KeyRing(clusterUuid, [[1, Buffer.alloc(32, 1)]])
            scene.keys = new MemoryKeyStore(ring)
            const verifier = exchange.createVerifier(PASSWORD, clusterUuid)
            return { version: 1, oldest: 1, verifier: sealVerifier(verifier, 1, ring, random) }
          },
        },
      ),
      1000,
    )
    scene.uuid = uuid
    return scene
  }

  parts() {
    return {
      store: new SimulatedStore(this.contents),
      hardState: new SimulatedHardState(this.hardState),
      random,
      clock: this.clock,
      logger: silentLogger,
    }
  }

  /** The server starts (again) on what is stored, on a host with these keys. */
  async start(keys: MemoryKeyStore = this.keys) {
    const { clock } = this
    if (this.#log !== null) await clock.settled(this.#log.retire(), 1000)
    const mastered = Promise.withResolvers<void>()
    const events: RaftLogEvents = {
      send: () => {},
      becameMaster: () => mastered.resolve(),
      lostMastership: () => {},
      sendSnapshot: () => {},
      install: () => {},
      failed: fail,
    }
    const { state, log } = await clock.settled(openRepository({ ...this.parts(), events }), 1000)
    this.#log = log
    await clock.settled(mastered.promise, 1000)
    const master = new Master({ state, log, clock, random, logger: silentLogger })
    const recorder = new EventRecorder(master)
    const parts = {
      master,
      events: recorder,
      keys,
      clusterName: 'alpha',
      loadExchange: () => Promise.resolve(exchange),
    }
    const service = new AuthenticationService(parts)
    service.start()
    const said = (): string[] => [...state.events.values()].map((event) => event.message)
    return { service, master, state, said, keys }
  }

  /** Proves a password as a host does. Null: the host finds out itself that it is wrong. */
  async prove(service: AuthenticationService, password: string, peer = new FakePeer()) {
    const handlers = service.passwordHandlers()
    const { state, message: request } = exchange.begin(password)
    const { response } = await handlers['auth.start']({ request, host: 'node' }, peer.asPeer)
    const proof = exchange.prove(state, response, password, this.uuid)
    if (proof === null) return null
    const finish = proof.message
    const { sealed } = await handlers['auth.finish']({ finish }, peer.asPeer)
    const session = new PasswordSession(proof.sessionKey, { request, response, finish }, this.uuid, random)
    return { session, keys: parseKeyRing(session.unseal('keys', sealed)), peer, handlers }
  }
}

test('the right password gives the key, sealed; a wrong one gives nothing and is an event', async () => {
  const scene = await Scene.create()
  const { service, said } = await scene.start()
  const proven = await scene.prove(service, PASSWORD)
  deepEqual(proven?.keys.versions, [1])
  deepEqual(proven?.keys.get(1), Buffer.alloc(32, 1))
  const guesser = new FakePeer('10.0.0.66')
  equal(await scene.prove(service, 'wrong', guesser), null)
  guesser.close()
  await scene.clock.advance(100)
  match(said().join('\n'), /Host node \(10\.0\.0\.1\) has proved the password/)
  match(said().join('\n'), /Wrong password from host node \(10\.0\.0\.66\)/)
})

test('a made-up proof, a second one, and one without its beginning are refused', async () => {
  const scene = await Scene.create()
  const { service } = await scene.start()
  const handlers = service.passwordHandlers()
  const peer = new FakePeer().asPeer
  const finish = Buffer.alloc(64, 3).toString('base64url')
  await rejects(async () => handlers['auth.finish']({ finish }, peer), hasCode('REFUSED'))
  await handlers['auth.start']({ request: exchange.begin(PASSWORD).message, host: 'node' }, peer)
  await rejects(async () => handlers['auth.finish']({ finish }, peer), hasCode('WRONG_PASSWORD'))
  await rejects(async () => handlers['auth.finish']({ finish }, peer), hasCode('REFUSED'))
  const again = { request: exchange.begin(PASSWORD).message, host: 'node' }
  await rejects(async () => handlers['auth.start'](again, peer), hasCode('REFUSED'))
  const garbage = { request: 'garbage', host: 'node' }
  await rejects(async () => handlers['auth.start'](garbage, new FakePeer().asPeer), hasCode('BAD_MESSAGE'))
})

test('a bounded number of exchanges and connections, and none for ever', async () => {
  const scene = await Scene.create()
  const { service } = await scene.start()
  const begin = (peer: FakePeer) =>
    peer.handlers?.['auth.start']({ request: exchange.begin(PASSWORD).message, host: 'node' }, peer.asPeer)
  const peers = Array.from({ length: 65 }, (_, index) => new FakePeer(`10.0.1.${index}`))
  for (const peer of peers.slice(0, 32)) {
    service.serve(peer.asPeer)
    await begin(peer)
    await scene.clock.advance(1000)
  }
  const [late, ...others] = peers.slice(32)
  ok(late !== undefined)
  service.serve(late.asPeer)
  await rejects(async () => begin(late), hasCode('OVERLOADED'))
  for (const peer of others) service.serve(peer.asPeer)
  equal(peers.filter((peer) => peer.isClosed).length, 1, 'the last one')
  // Those that began first are closed after a minute, and make room.
  await scene.clock.advance(40_000)
  equal(peers.filter((peer) => peer.isClosed).length, 1 + 13)
  await begin(late)
})

test('the password is changed by who proves the old one; the key stays', async () => {
  const scene = await Scene.create()
  const { service, state } = await scene.start()
  const handlers = service.passwordHandlers()
  const stranger = new FakePeer().asPeer
  const sealed = Buffer.alloc(64)
  await rejects(async () => handlers['auth.register']({ sealed }, stranger), hasCode('REFUSED'))
  await rejects(async () => handlers['auth.replace']({ sealed }, stranger), hasCode('REFUSED'))
  const proven = await scene.prove(service, PASSWORD)
  ok(proven !== null)
  const { session } = proven
  const peer = proven.peer.asPeer
  const begun = exchange.beginRegistration('the second password')
  // Sealed for another use it does not open.
  const misused = { sealed: session.seal('registration record', begun.message) }
  await rejects(async () => handlers['auth.register'](misused, peer), hasCode('WRONG_KEY'))
  const request = { sealed: session.seal('registration request', begun.message) }
  const answered = await handlers['auth.register'](request, peer)
  const answer = session.unseal('registration response', answered.sealed)
  const record = exchange.finishRegistration(begun.state, answer, 'the second password', scene.uuid)
  const replacement = { sealed: session.seal('registration record', record) }
  await scene.clock.settled(Promise.resolve(handlers['auth.replace'](replacement, peer)), 1000)
  equal(await scene.prove(service, PASSWORD), null)
  deepEqual((await scene.prove(service, 'the second password'))?.keys.versions, [1])
  const stored = JSON.stringify([...state.config.rows()])
  for (const secret of [record, begun.message, 'second password']) equal(stored.includes(secret), false)
})

test('a new key: both are valid, a server that starts with the old one finds it, the old one ends by itself', async () => {
  const scene = await Scene.create()
  const oldHost = new MemoryKeyStore(scene.keys.current())
  const { service, keys } = await scene.start()
  const handlers = service.keyHandlers()
  const peer = new FakePeer().asPeer
  await rejects(async () => handlers['key.retire']({}, peer), hasCode('REFUSED'))
  const rotated = await scene.clock.settled(Promise.resolve(handlers['key.rotate']({}, peer)), 1000)
  deepEqual(rotated, { version: 2, overlapMs: 24 * 3600 * 1000 })
  deepEqual(keys.current().versions, [1, 2])
  notEqual(keys.current().get(2)?.toString('hex'), keys.current().get(1)?.toString('hex'))
  await rejects(async () => handlers['key.rotate']({}, peer), hasCode('REFUSED'))
  deepEqual((await scene.prove(service, PASSWORD))?.keys.versions, [1, 2])
  const second = await scene.start(oldHost)
  deepEqual(second.keys.current(), keys.current())
  // Log time reaches the end of the overlap.
  for (let day = 0; day < 24 * 360 + 1; day++) second.master.submit({ type: 'tick', elapsedMs: 10_000 })
  await scene.clock.advance(30_000)
  deepEqual(second.keys.current().versions, [2])
  match(second.said().join('\n'), /Version 1 of the cluster key is not valid any more/)
  const late = new MemoryKeyStore(new KeyRing(scene.uuid, [[1, Buffer.alloc(32, 1)]]))
  await rejects(() => scene.start(late), hasCode('KEY_RETIRED'))
})

test('a server does not start with the key of another cluster, or on a cluster without a password', async () => {
  const scene = await Scene.create()
  const foreign = new MemoryKeyStore(new KeyRing('f'.repeat(32), [[1, Buffer.alloc(32, 1)]]))
  await rejects(() => scene.start(foreign), hasCode('WRONG_CLUSTER'))
  const other = new MemoryKeyStore(new KeyRing(scene.uuid, [[1, Buffer.alloc(32, 2)]]))
  await rejects(() => scene.start(other), hasCode('WRONG_KEY'))
  const bare = new Scene()
  const { uuid } = await bare.clock.settled(
    createCluster({ ...bare.parts(), onFatal: fail }, { name: 'alpha' }),
    1000,
  )
  bare.keys = new MemoryKeyStore(new KeyRing(uuid, [[1, Buffer.alloc(32, 1)]]))
  await rejects(() => bare.start(), hasCode('KEY_MISSING'))
})
