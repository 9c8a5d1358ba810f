/**
 * Password exchange by @serenity-kit/opaque (opaque-ke compiled to WebAssembly): ristretto255, triple
 * Diffie-Hellman, argon2id with 64 MiB and 3 passes on the side that knows the password.
 * RFC 9807; docs/formats/authentication.md.
 */
import { CairnError } from '../../base/errors.ts'
import type { PasswordExchange } from '../password.ts'

const USER = 'cluster-password'
const KEY_STRETCHING = 'memory-constrained'

/** The library is loaded when somebody needs it: most processes never do. */
export async function loadPasswordExchange(): Promise<PasswordExchange> {
  const { client, ready, server } = await import('@serenity-kit/opaque')
  await ready
  const names = (clusterUuid: string) => ({ client: 'cairn-host', server: `cairn-cluster ${clusterUuid}` })

  const exchange: PasswordExchange = {
    createVerifier(password, clusterUuid) {
      const setup = server.createSetup()
      const { state, message } = exchange.beginRegistration(password)
      const answer = exchange.answerRegistration(setup, message)
      return { setup, record: exchange.finishRegistration(state, answer, password, clusterUuid) }
    },
    begin: (password) =>
      guarded(() => {
        const { clientLoginState, startLoginRequest } = client.startLogin({ password })
        return { state: clientLoginState, message: startLoginRequest }
      }),
    prove: (clientLoginState, loginResponse, password, clusterUuid) =>
      guarded(() => {
        const proof = client.finishLogin({
          clientLoginState,
          loginResponse,
          password,
          identifiers: names(clusterUuid),
          keyStretching: KEY_STRETCHING,
        })
        return proof === undefined
          ? null
          : { message: proof.finishLoginRequest, sessionKey: Buffer.from(proof.sessionKey, 'base64url') }
      }),
    beginRegistration: (password) =>
      guarded(() => {
        const { clientRegistrationState, registrationRequest } = client.startRegistration({ password })
        return { state: clientRegistrationState, message: registrationRequest }
      }),
    finishRegistration: (clientRegistrationState, registrationResponse, password, clusterUuid) =>
      guarded(
        () =>
          client.finishRegistration({
            clientRegistrationState,
            registrationResponse,
            password,
            identifiers: names(clusterUuid),
            keyStretching: KEY_STRETCHING,
          }).registrationRecord,
      ),
    answer: ({ setup, record }, startLoginRequest, clusterUuid) =>
      guarded(() => {
        const { serverLoginState, loginResponse } = server.startLogin({
          serverSetup: setup,
          userIdentifier: USER,
          registrationRecord: record,
          startLoginRequest,
          identifiers: names(clusterUuid),
        })
        return { state: serverLoginState, message: loginResponse }
      }),
    check(serverLoginState, finishLoginRequest, clusterUuid) {
      try {
        const { sessionKey } = server.finishLogin({
          serverLoginState,
          finishLoginRequest,
          identifiers: names(clusterUuid),
        })
        return Buffer.from(sessionKey, 'base64url')
      } catch {
        // A proof that does not verify, or is none: the same for whoever sent it.
        return null
      }
    },
    answerRegistration: (serverSetup, registrationRequest) =>
      guarded(
        () =>
          server.createRegistrationResponse({ serverSetup, userIdentifier: USER, registrationRequest })
            .registrationResponse,
      ),
  }
  return exchange
}

/** What the library throws is about its input; never repeated, because it may name parts of it. */
function guarded<T>(use: () => T): T {
  try {
    return use()
  } catch (error) {
    throw new CairnError('BAD_MESSAGE', 'not a message of the password exchange', { cause: error })
  }
}
