/** The chunk server's room: what the composition root and the simulator use of it. */
export { ChunkServer, type ChunkServerOptions, type ChunkServerState } from './chunk-server.ts'
export type { ChunkStore } from './chunk-store.ts'
export { closeStore, createStore, openStore } from './store-open.ts'
export { loadSuperblock, type Superblock } from './superblock.ts'
export {
  checkNewStore,
  type DiskFacts,
  type KnownHost,
  type NewStoreFacts,
  type NewStoreWarning,
} from './make-store.ts'
