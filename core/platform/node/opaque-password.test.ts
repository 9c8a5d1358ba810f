/** The password exchange: right and wrong passwords, altered messages, and what a recording gives away. */
import { deepEqual, equal, notEqual, ok } from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { codeOf } from '../../base/errors.ts'
import type { PasswordExchange, PasswordVerifier } from '../password.ts'
import { loadPasswordExchange } from './opaque-password.ts'

const UUID = 'e'.repeat(32)
const PASSWORD = 'correct horse battery staple'
const COMMON_BYTES = 16

interface Run {
  readonly messages: readonly Buffer[]
  readonly clientKey: Buffer | null
  readonly serverKey: Buffer | null
}

function run(exchange: PasswordExchange, verifier: PasswordVerifier, password: string, uuid = UUID): Run {
  const { state, message: request } = exchange.begin(password)
  const answer = exchange.answer(verifier, request, UUID)
  const proof = exchange.prove(state, answer.message, password, uuid)
  const texts = [request, answer.message, ...(proof === null ? [] : [proof.message])]
  return {
    messages: texts.map((text) => Buffer.from(text, 'base64url')),
    clientKey: proof?.sessionKey ?? null,
    serverKey: proof === null ? null : exchange.check(answer.state, proof.message, UUID),
  }
}

const exchange = await loadPasswordExchange()
const verifier = exchange.createVerifier(PASSWORD, UUID)

test('the right password gives both sides one key, a new one each time', () => {
  const [one, other] = [run(exchange, verifier, PASSWORD), run(exchange, verifier, PASSWORD)]
  equal(one.clientKey?.length, 64)
  deepEqual(one.clientKey, one.serverKey)
  notEqual(one.clientKey?.toString('hex'), other.clientKey?.toString('hex'))
})

test('a wrong password, another cluster, and another verifier end at the client: nothing is proved', () => {
  equal(run(exchange, verifier, 'wrong').clientKey, null)
  equal(run(exchange, verifier, PASSWORD, 'f'.repeat(32)).clientKey, null)
  equal(run(exchange, exchange.createVerifier('another', UUID), PASSWORD).clientKey, null)
})

test('a proof that was altered, or made for another exchange, is not accepted', () => {
  const { state, message: request } = exchange.begin(PASSWORD)
  const [first, second] = [exchange.answer(verifier, request, UUID), exchange.answer(verifier, request, UUID)]
  const proof = exchange.prove(state, first.message, PASSWORD, UUID)
  ok(proof !== null)
  equal(exchange.check(second.state, proof.message, UUID), null)
  const altered = Buffer.from(proof.message, 'base64url')
  altered[10] = (altered[10] ?? 0) ^ 1
  equal(exchange.check(first.state, altered.toString('base64url'), UUID), null)
  for (const garbage of ['', '!', 'AAAA', 'A'.repeat(1000)]) {
    equal(exchange.check(first.state, garbage, UUID), null)
    const tried = [
      () => exchange.answer(verifier, garbage, UUID),
      () => exchange.answerRegistration(verifier.setup, garbage),
    ]
    for (const attempt of tried) {
      let code = ''
      try {
        attempt()
      } catch (error) {
        code = codeOf(error)
      }
      equal(code, 'BAD_MESSAGE')
    }
  }
})

test('two runs with one password have no 16 bytes in common, and none with the password or its hashes', () => {
  const runs = [run(exchange, verifier, PASSWORD), run(exchange, verifier, PASSWORD)]
  const [first, second] = runs.map((one) => Buffer.concat(one.messages))
  ok(first !== undefined && second !== undefined && first.length > 400)
  const secrets = [
    Buffer.from(PASSWORD),
    ...['sha256', 'sha512', 'sha1', 'md5'].map((name) => createHash(name).update(PASSWORD).digest()),
  ]
  for (let at = 0; at + COMMON_BYTES <= first.length; at++)
    equal(second.includes(first.subarray(at, at + COMMON_BYTES)), false, `bytes from ${at}`)
  for (const secret of secrets) equal(first.includes(secret.subarray(0, COMMON_BYTES)), false)
})

test('who recorded everything and knows the password gets no key from playing the client again', () => {
  // The script has the request and the answer as they travelled, and the password. Without the client's state
  // (its blind and its ephemeral private key, which never travelled) a state of its own does not fit the answer.
  const { message: request } = exchange.begin(PASSWORD)
  const answer = exchange.answer(verifier, request, UUID)
  for (const guess of [PASSWORD, 'wrong']) {
    const own = exchange.begin(guess)
    equal(exchange.prove(own.state, answer.message, guess, UUID), null)
  }
})

test('a changed password: the new one is right, the old one is not', () => {
  const { state, message } = exchange.beginRegistration('new')
  const record = exchange.finishRegistration(
    state,
    exchange.answerRegistration(verifier.setup, message),
    'new',
    UUID,
  )
  const changed = { setup: verifier.setup, record }
  ok(run(exchange, changed, 'new').serverKey !== null)
  equal(run(exchange, changed, PASSWORD).clientKey, null)
})
