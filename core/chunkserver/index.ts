/** The chunk server's room: what the composition root and the simulator use of it. */
export { ChunkServer } from './chunk-server.ts'
export { checkNewStore } from './format/make-store.ts'
export { createStore } from './store/store-open.ts'
