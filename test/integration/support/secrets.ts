/** What a secret could look like in captured bytes: itself, its usual encodings, its hashes and theirs. */
import { createHash } from 'node:crypto'

/** So many bytes in common are no accident. */
export const COMMON_BYTES = 16
const HASHES = ['sha256', 'sha512', 'sha1', 'md5']

/** Pieces of COMMON_BYTES bytes, any of which would give the secret away. */
export function tracesOf(secret: Buffer): Buffer[] {
  const forms: Buffer[] = [secret, ...HASHES.map((name) => createHash(name).update(secret).digest())]
  return forms
    .flatMap((form) => [
      form,
      Buffer.from(form.toString('hex')),
      Buffer.from(form.toString('base64')),
      Buffer.from(form.toString('base64url')),
    ])
    .flatMap((form) => {
      // A packet may end in the middle of it.
      const middle = Math.max(0, Math.floor((form.length - COMMON_BYTES) / 2))
      return [0, middle, Math.max(0, form.length - COMMON_BYTES)].map((at) =>
        form.subarray(at, at + COMMON_BYTES),
      )
    })
}
