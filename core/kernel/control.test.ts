/** Proves the control protocol in both directions, with bytes in small pieces and peers that misbehave. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CairnError } from '../base/errors.ts'
import {
  CONTROL_IN_FLIGHT_MAX,
  CONTROL_REQUEST_BYTES_MAX,
  ControlClient,
  ControlSession,
  pluginCommands,
} from './control.ts'
import type { ControlCommands } from './control.ts'
import { definePlugin } from './plugin.ts'
import { fixture, ManualClock, until } from './test-support.ts'

/** Client and session wired to each other; every line travels in pieces of `pieceBytes`. */
function wire(commands: ControlCommands, pieceBytes = 7) {
  const clock = new ManualClock()
  const closed = { client: false, session: false }
  const pieces = (line: string, receive: (bytes: Uint8Array) => void): void => {
    const bytes = Buffer.from(line)
    const reused = Buffer.alloc(pieceBytes)
    for (let at = 0; at < bytes.length; at += pieceBytes) {
      const length = bytes.copy(reused, 0, at, at + pieceBytes)
      receive(reused.subarray(0, length))
      reused.fill(0xff)
    }
  }
  const client: ControlClient = new ControlClient(clock, {
    send: (line) => pieces(line, (bytes) => session.receive(bytes)),
    close: () => (closed.client = true),
  })
  const session = new ControlSession(commands, {
    send: (line) => pieces(line, (bytes) => client.receive(bytes)),
    close: () => (closed.session = true),
  })
  return { clock, client, session, closed }
}

test('list, disable, enable and reload go through to a host and back', async () => {
  const made = fixture({ one: { definition: definePlugin({ apply() {} }) } })
  await made.host.load()
  await made.host.start()
  const { client, clock } = wire(pluginCommands(made.host))
  const list = await client.request<{ name: string; state: string }[]>('plugin.list')
  assert.deepEqual(
    list.map(({ name, state }) => `${name} ${state}`),
    ['one ACTIVE'],
  )
  const states = []
  for (const command of ['plugin.disable', 'plugin.enable', 'plugin.reload'])
    states.push((await client.request<{ state: string }>(command, { name: 'one' })).state)
  assert.deepEqual(states, ['DISABLED', 'ACTIVE', 'ACTIVE'])
  assert.equal(clock.timerCount, 0)
})

test('errors keep code, message and next step', async () => {
  const made = fixture({})
  await made.host.load()
  const { client } = wire(pluginCommands(made.host))
  await assert.rejects(client.request('plugin.reload', { name: 'nope' }), (error: unknown) => {
    assert.ok(error instanceof CairnError)
    assert.equal(error.code, 'PLUGIN_UNKNOWN')
    assert.match(error.next ?? '', /cairn plugin list/)
    return true
  })
  await assert.rejects(client.request('plugin.reload'), { code: 'CONTROL_PROTOCOL', message: /"name"/ })
  await assert.rejects(client.request('no.such'), {
    code: 'CONTROL_PROTOCOL',
    message: /knows no command "no.such"/,
  })
  await assert.rejects(client.request('toString'), { code: 'CONTROL_PROTOCOL' })
})

test('garbage, wrong versions and endless lines are answered and closed; the client is told', async () => {
  for (const bad of [
    'hello\n',
    '{"version":2,"id":1,"command":"x"}\n',
    'x'.repeat(CONTROL_REQUEST_BYTES_MAX + 1),
  ]) {
    const { client, session, closed } = wire({ hang: () => new Promise(() => {}) }, 1 << 20)
    const pending = client.request('hang')
    session.receive(Buffer.from(bad))
    assert.equal(closed.session, true)
    await assert.rejects(pending, { code: 'CONTROL_PROTOCOL' })
    await assert.rejects(client.request('hang'), { code: 'CONTROL_PROTOCOL' })
    session.receive(Buffer.from(bad)) // ignored from now on
  }
})

test('requests in flight are bounded on both sides', async () => {
  const { client, session } = wire({ hang: () => new Promise(() => {}) })
  for (let index = 0; index < CONTROL_IN_FLIGHT_MAX; index++) client.request('hang').catch(() => {})
  await assert.rejects(client.request('hang'), { code: 'CONTROL_BUSY' })
  const answers: string[] = []
  const greedy = new ControlSession(
    { hang: () => new Promise(() => {}) },
    { send: (line) => answers.push(line), close() {} },
  )
  for (let id = 0; id <= CONTROL_IN_FLIGHT_MAX; id++)
    greedy.receive(Buffer.from(`{"version":1,"id":${id},"command":"hang"}\n`))
  assert.match(answers[0] ?? '', /CONTROL_BUSY/)
  session.disconnected()
})

test('a silent process is given up on; a closed connection fails what waits', async () => {
  const { client, clock } = wire({ hang: () => new Promise(() => {}) })
  const silent = client.request('hang', {}, 500)
  clock.advance(500)
  await assert.rejects(silent, { code: 'CONTROL_CLOSED', message: /no answer to hang within 500 ms/ })
  const waiting = client.request('hang')
  client.disconnected()
  await assert.rejects(waiting, { code: 'CONTROL_CLOSED' })
  assert.equal(clock.timerCount, 0)
})

test('an answer that comes after the connection is gone is dropped', async () => {
  let finish = (): void => {}
  let isDone = false
  const answers: string[] = []
  const session = new ControlSession(
    { slow: () => new Promise((resolve) => (finish = () => resolve((isDone = true)))) },
    { send: (line) => answers.push(line), close() {} },
  )
  session.receive(Buffer.from('{"version":1,"id":1,"command":"slow"}\n'))
  await Promise.resolve()
  session.disconnected()
  finish()
  await until(() => isDone, 'the command')
  assert.deepEqual(answers, [])
})
