/**
 * Proof of a password between two processes, as an interface: OPAQUE (RFC 9807). Neither the password nor
 * anything it could be guessed from travels. The real one is node/opaque-password.ts; its randomness is its own.
 */

/** What the side that checks keeps: enough to guess passwords offline, so it is stored sealed only. */
export interface PasswordVerifier {
  /** Keys of the side that checks. */
  readonly setup: string
  readonly record: string
}

/** State between two messages: opaque text, never sent, forgotten after use. */
export interface PasswordStep {
  readonly state: string
  readonly message: string
}

export interface PasswordProof {
  readonly message: string
  /** Known to both sides afterwards, and to nobody else. */
  readonly sessionKey: Buffer
}

/** All of them throw BAD_MESSAGE for what is no message of this exchange. */
export interface PasswordExchange {
  /** Of a new password, without messages: both sides in one process. */
  createVerifier(password: string, clusterUuid: string): PasswordVerifier

  // who knows the password
  begin(password: string): PasswordStep
  /** Null: not the password, or the other side does not have its verifier. Takes a good part of a second. */
  prove(state: string, answer: string, password: string, clusterUuid: string): PasswordProof | null
  beginRegistration(password: string): PasswordStep
  /** The record that the other side keeps. */
  finishRegistration(state: string, answer: string, password: string, clusterUuid: string): string

  // who checks it
  answer(verifier: PasswordVerifier, request: string, clusterUuid: string): PasswordStep
  /** The session key; null: the proof is wrong. */
  check(state: string, proof: string, clusterUuid: string): Buffer | null
  answerRegistration(setup: string, request: string): string
}
