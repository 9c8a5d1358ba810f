/** Errors of the plugin host. Decide by `code`; the text is for people: what, to what, why, next step. */
import { CairnError } from '../base/errors.ts'

interface KernelErrorRow {
  readonly retryable: boolean
  readonly next: string
}

const TABLE = {
  PLUGIN_NOT_FOUND: {
    retryable: false,
    next: 'Check the spelling in plugins.enabled, or install the package.',
  },
  PLUGIN_MANIFEST: { retryable: false, next: 'Correct the "cairn" block of the package.json named above.' },
  PLUGIN_INCOMPATIBLE: { retryable: false, next: 'Install a version of the plugin made for this core.' },
  PLUGIN_IMPORT: {
    retryable: false,
    next: 'Correct the code of the plugin, then: cairn plugin reload NAME.',
  },
  PLUGIN_APPLY: { retryable: false, next: 'Correct the code of the plugin, then: cairn plugin reload NAME.' },
  PLUGIN_START: { retryable: true, next: 'See the log of this process, then: cairn plugin reload NAME.' },
  PLUGIN_DEADLINE: { retryable: false, next: 'See the log of this process, then: cairn plugin reload NAME.' },
  PLUGIN_TRIPPED: { retryable: false, next: 'See the log of this process, then: cairn plugin reload NAME.' },
  PLUGIN_CYCLE: { retryable: false, next: 'Remove one of the entries in "requires" from a manifest.' },
  PLUGIN_UNKNOWN: { retryable: false, next: 'List the known plugins with: cairn plugin list.' },
  PLUGIN_BOOT: { retryable: false, next: 'Repair the plugin, or take it out of plugins.enabled.' },
  PLUGIN_LIMIT: { retryable: false, next: 'This is a fault in the plugin: tell its author.' },
  PLUGIN_STOPPED: { retryable: false, next: 'The plugin is being stopped: register nothing after that.' },
  HOOK_FAULT: { retryable: false, next: 'See the log of this process, then: cairn plugin reload NAME.' },
  SERVICE_MISSING: {
    retryable: false,
    next: 'Name the service in "requires" of the manifest of the plugin.',
  },
  SERVICE_UNDECLARED: {
    retryable: false,
    next: 'Name the service in "provides" of the manifest of the plugin.',
  },
  CONFIG_READ: { retryable: false, next: 'Make the file readable JSON.' },
  CONFIG_INVALID: { retryable: false, next: 'Correct the keys named above and start again.' },
  CONTROL_PROTOCOL: { retryable: false, next: 'Use the cairn program of the same version.' },
  CONTROL_BUSY: { retryable: true, next: 'Try again in a moment.' },
  CONTROL_CLOSED: { retryable: true, next: 'Check that the process still runs, then try again.' },
} satisfies Record<string, KernelErrorRow>

export type KernelErrorCode = keyof typeof TABLE

/** A kernel error with the next step of its code, unless a better one is known where it happens. */
export function kernelError(
  code: KernelErrorCode,
  message: string,
  details: { readonly next?: string; readonly cause?: unknown } = {},
): CairnError {
  const row = TABLE[code]
  return new CairnError(code, message, {
    retryable: row.retryable,
    next: details.next ?? row.next,
    cause: details.cause,
  })
}

/** The text of anything thrown, for messages and logs. A plugin may throw what is not an Error. */
export function messageOf(error: unknown): string {
  if (error instanceof Error) return error.message
  try {
    return String(error)
  } catch {
    return 'an object that cannot be shown'
  }
}
