/** Stands for core/metadata/chunks/intents.ts: a new chunk has no intent of the lease that made it. */
import { intentHandlers as real } from '../../core/metadata/chunks/intents.ts'

export const intentHandlers: typeof real = {
  ...real,
  'chunk.create'(context, command) {
    const result = real['chunk.create'](context, command)
    for (const { chunk } of command.chunks) {
      const row = context.state.chunks.get(chunk)
      if (row?.intentLease === command.lease) context.state.chunks.put({ ...row, intentLease: 0 })
    }
    return result
  },
}
