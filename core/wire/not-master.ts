/** Refusal of a metadata server that is not the master, with the base address of the one that is, when it knows. */
import { CairnError } from '../base/errors.ts'
import type { Address } from '../platform/network.ts'

export class NotMasterError extends CairnError {
  /** A hint: whoever answers there still has to prove that it belongs to the cluster. */
  readonly master: Address | null

  constructor(message: string, master: Address | null) {
    super('NOT_MASTER', message, { retryable: true })
    this.master = master
  }
}

/** Where the one who refused sends us; null when it said nothing of the kind. */
export function masterHint(error: CairnError | null): Address | null {
  return error instanceof NotMasterError ? error.master : null
}
