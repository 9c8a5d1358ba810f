/** Processes of one configuration root whose control sockets have the same name do not get into each other's way. */
import assert from 'node:assert/strict'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { after, it } from 'node:test'
import { askControl, type ControlServer, serveControl } from './control-socket.ts'

const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'cairn-control-'))
const first = path.join(directory, 'cs-cs.sock')
const others = [2, 3].map((number) => path.join(directory, `cs-cs.${number}.sock`))
const servers: ControlServer[] = []
after(() => {
  for (const server of servers) server.close()
  fs.rmSync(directory, { recursive: true })
})

async function serve(answer: string): Promise<ControlServer> {
  const server = await serveControl(first, { who: () => Promise.resolve(answer) }, others)
  servers.push(server)
  return server
}

it('those that start at once all get one, one that ends leaves those of the others', async () => {
  await Promise.all(['a', 'b', 'c'].map(serve))
  const ask = (): Promise<(string | null)[]> =>
    Promise.all([first, ...others].map((file) => askControl<string>(file, 'who')))
  assert.deepEqual((await ask()).map(String).toSorted(), ['a', 'b', 'c'])
  servers[0]?.close()
  assert.deepEqual((await ask()).filter((answer) => answer !== null).toSorted(), ['b', 'c'])
})

it('one that nobody listens on any more is replaced', async () => {
  for (const server of servers.splice(0)) server.close()
  fs.writeFileSync(first, '')
  await serve('d')
  assert.equal(await askControl(first, 'who'), 'd')
})
