/** When the trouble is over: a client that knows nothing looks at all names and reads all files. */
import { codeOf } from '../../core/base/errors.ts'
import type { Client, File } from '../../core/client/api.ts'
import type { FileModel } from './file-model.ts'
import type { SharedState } from './shared-state.ts'

const READ_BYTES = 64 * 1024
const EDGE_BYTES = 8192

/** Every name holds what it must, as this client sees it. */
export async function checkNames(
  client: Client,
  who: string,
  shared: SharedState,
  directory: number,
): Promise<void> {
  const { names, oracle } = shared
  for (const name of names.names) {
    const possible = names.possible(name)
    let inode = 0
    try {
      inode = (await client.fileSystem.lookup(directory, name)).inode
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error
    }
    if (inode === 0) {
      if (!possible.includes(null))
        oracle.fail(`${who}: ${name} is gone; it must hold ${possible.join(' or ')}`)
      continue
    }
    const files = possible.filter((file) => file !== null)
    const match = files.find((file) => [0, inode].includes(oracle.file(file).inode))
    if (match === undefined)
      oracle.fail(`${who}: ${name} holds inode ${inode}; possible: ${possible.join(' or ')}`)
    else if (names.isKnown(name)) oracle.file(match).inode = inode
  }
}

/** Sizes, and all that was ever written, of every file that has a name. */
export async function checkFiles(client: Client, who: string, shared: SharedState): Promise<void> {
  const { oracle, names } = shared
  const alive = new Set(names.names.filter((name) => names.isKnown(name)).map((name) => names.occupant(name)))
  for (const model of oracle.files.values()) {
    const isShared = shared.fileNames.includes(model.name)
    if (model.inode === 0 || (!isShared && !alive.has(model.name))) continue
    await checkFile(client, who, model, shared)
  }
}

/** Those there must be, and no others; what each contains. Then all are deleted, the oldest last. */
export async function checkSnapshots(client: Client, who: string, shared: SharedState): Promise<void> {
  const { oracle } = shared
  const { entries, unknownNames } = oracle.snapshots
  if (entries.size + unknownNames.size === 0) return
  const listed = await client.snapshots.list()
  const found = new Set(listed.map(({ snapshot }) => snapshot))
  for (const [id, { name, state }] of entries) {
    if (found.has(id) ? state === 'gone' : state === 'there')
      oracle.fail(
        `${who}: snapshot ${name} (${id}) ${found.has(id) ? 'is there' : 'is not there'}: it is ${state}`,
      )
  }
  for (const { snapshot, name, ready } of listed.toReversed()) {
    const entry = entries.get(snapshot)
    if (entry === undefined && !unknownNames.has(name)) oracle.fail(`${who}: nobody made snapshot ${name}`)
    if (!ready) oracle.fail(`${who}: the chunk list of snapshot ${name} is not complete`)
    if (entry !== undefined) await checkFile(client, who, entry.model, shared)
    await client.snapshots.delete(snapshot)
  }
}

async function checkFile(client: Client, who: string, model: FileModel, shared: SharedState): Promise<void> {
  const { oracle } = shared
  const file = await client.fileSystem.open(model.inode)
  const since = oracle.tick()
  const fault = model.checkSize(file.attributes().size, since)
  if (fault !== null) oracle.fail(`${who} ${model.name}: ${fault}`)
  await readAll(file, who, model, shared, since)
  file.close()
}

/** Everything that was ever written, and what lies around it. */
async function readAll(
  file: File,
  who: string,
  model: FileModel,
  shared: SharedState,
  since: number,
): Promise<void> {
  const { oracle } = shared
  for (const { begin, end } of merged(model.extents())) {
    for (let position = begin; position < end; position += READ_BYTES) {
      const length = Math.min(READ_BYTES, end - position)
      await new Promise<void>((resolve) => {
        file.read(position, length, (error, borrowedData) => {
          if (error !== null)
            oracle.fail(`${who} read ${model.name} ${position}: ${error.code}: ${error.message}`)
          else oracle.checkRead(who, model, position, length, borrowedData, since)
          resolve()
        })
      })
    }
  }
}

function merged(extents: readonly { begin: number; end: number }[]): { begin: number; end: number }[] {
  const sorted = extents
    .map(({ begin, end }) => ({
      begin: Math.max(0, begin - EDGE_BYTES),
      end: Math.min(end, begin + READ_BYTES) + EDGE_BYTES,
    }))
    .toSorted((a, b) => a.begin - b.begin)
  const result: { begin: number; end: number }[] = []
  for (const extent of sorted) {
    const last = result.at(-1)
    if (last !== undefined && extent.begin <= last.end) last.end = Math.max(last.end, extent.end)
    else result.push({ ...extent })
  }
  return result
}
