/** Operations are pooled by kind: on the data path none is made anew. */
import { DataOp } from '../../wire/data.ts'
import type { ChunkStore } from './chunk-store.ts'
import { FlushOperation } from './flush-operation.ts'
import type { Operation } from './operation.ts'
import { DigestOperation, PullOperation, ReadOperation } from './read-operations.ts'
import { WriteOperation } from './write-operations.ts'
import { ZeroOperation } from './zero-operation.ts'

const DATA_COUNT = 512
const FLUSH_COUNT = 64
const RARE_COUNT = 16

/** A bounded stack of operations that are not in use. */
class OperationPool<T extends Operation> {
  readonly #free: T[] = []
  readonly #create: () => T
  readonly #countMax: number

  constructor(create: () => T, countMax: number) {
    this.#create = create
    this.#countMax = countMax
  }

  take(): T {
    return this.#free.pop() ?? this.#create()
  }

  give(operation: T): void {
    if (this.#free.length < this.#countMax) this.#free.push(operation)
  }
}

export class OperationPools {
  readonly reads: OperationPool<ReadOperation>
  readonly digests: OperationPool<DigestOperation>
  readonly pulls: OperationPool<PullOperation>
  readonly writes: OperationPool<WriteOperation>
  readonly zeroings: OperationPool<ZeroOperation>
  readonly flushes: OperationPool<FlushOperation>

  constructor(store: ChunkStore) {
    this.reads = new OperationPool(() => new ReadOperation(store), DATA_COUNT)
    this.digests = new OperationPool(() => new DigestOperation(store), RARE_COUNT)
    this.pulls = new OperationPool(() => new PullOperation(store), RARE_COUNT)
    this.writes = new OperationPool(() => new WriteOperation(store), DATA_COUNT)
    this.zeroings = new OperationPool(() => new ZeroOperation(store), RARE_COUNT)
    this.flushes = new OperationPool(() => new FlushOperation(store), FLUSH_COUNT)
  }

  take(op: DataOp): Operation {
    switch (op) {
      case DataOp.write:
        return this.writes.take()
      case DataOp.read:
        return this.reads.take()
      case DataOp.flush:
        return this.flushes.take()
      case DataOp.zero:
        return this.zeroings.take()
      case DataOp.digest:
        return this.digests.take()
      case DataOp.pull:
        return this.pulls.take()
      default:
        return op satisfies never
    }
  }
}
