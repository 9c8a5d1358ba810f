/** The public entry point `@cairn/core/client`: open files and block devices of a cluster. */
export type * from './api.ts'
export type { MetadataServers } from '../discovery/metadata-servers.ts'
export { connect } from './connect.ts'
export { connect as connectOn } from './client.ts'
export type { ClientPlatform } from './session/transport.ts'
