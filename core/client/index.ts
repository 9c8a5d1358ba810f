/**
 * The public entry point `@cairn/core/client`: open files and block devices of a cluster.
 * Types only here; `connect` is in `client.ts`.
 */
export type * from './api.ts'
