/** What the torture asks of a client in a process of its own, and what that answers (client-process.ts). */
import type { Attributes } from '../../core/wire/messages/common.ts'

export interface ClientStart {
  readonly cluster: string
  readonly metadataServers: readonly string[]
  readonly keyFile: string
  readonly name: string
}

export type ClientOrder =
  | { readonly kind: 'lookup'; readonly parent: number; readonly name: string }
  | { readonly kind: 'make-directory'; readonly parent: number; readonly name: string }
  | { readonly kind: 'open'; readonly inode: number }
  | { readonly kind: 'create'; readonly parent: number; readonly name: string; readonly exclusive: boolean }
  | { readonly kind: 'unlink'; readonly parent: number; readonly name: string }
  | {
      readonly kind: 'rename'
      readonly parent: number
      readonly name: string
      readonly newParent: number
      readonly newName: string
      readonly mode: 'replace' | 'no-replace' | 'exchange'
    }
  | { readonly kind: 'read'; readonly handle: number; readonly offset: number; readonly length: number }
  | { readonly kind: 'write'; readonly handle: number; readonly offset: number; readonly data: Uint8Array }
  | { readonly kind: 'flush' | 'close'; readonly handle: number }
  | { readonly kind: 'truncate'; readonly handle: number; readonly size: number }
  | {
      readonly kind: 'zero'
      readonly handle: number
      readonly offset: number
      readonly length: number
      readonly keepSize: boolean
    }

export interface ClientQuestion {
  readonly id: number
  readonly order: ClientOrder
}

/** What an order gave; which of them depends on its kind. */
export interface ClientResult {
  /** Of the file it was about, as of the answer. */
  readonly attributes?: Attributes
  /** Of an open file. */
  readonly handle?: number
  readonly data?: Uint8Array
}

export type ClientAnswer =
  /** The first one: it is connected. */
  | { readonly id: 0 }
  | { readonly id: number; readonly result: ClientResult }
  | { readonly id: number; readonly failure: { readonly code: string; readonly message: string } }
