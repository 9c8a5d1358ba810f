/**
 * A TCP proxy that passes everything on a fixed time later, in order: ADDRESS PORT TARGET-PORT DELAY-MS. What it
 * holds is bounded by its sockets' own flow control and the time.
 */
import net from 'node:net'

const [address, port, targetPort, delay] = process.argv.slice(2)
const delayMs = Number(delay)

function pass(from: net.Socket, to: net.Socket): void {
  from.on('data', (data) => {
    setTimeout(() => {
      if (!to.destroyed) to.write(data)
    }, delayMs)
  })
  const end = (): void => {
    setTimeout(() => to.destroy(), delayMs)
  }
  from.on('close', end).on('error', end)
}

const server = net.createServer((client) => {
  client.setNoDelay(true)
  const target = net.connect(Number(targetPort), address)
  target.setNoDelay(true)
  pass(client, target)
  pass(target, client)
})
server.listen(Number(port), () => process.stdout.write('listens\n'))
