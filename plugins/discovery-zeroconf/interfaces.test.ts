/** Proves which interfaces are spoken on, and whose packets are heard. */
import assert from 'node:assert/strict'
import test from 'node:test'
import { chooseInterfaces } from './interfaces.ts'

const entry = (address: string, cidr: string, internal = false) => ({
  address,
  cidr,
  internal,
  netmask: '',
  mac: '',
  family: address.includes(':') ? ('IPv6' as const) : ('IPv4' as const),
  scopeid: 0,
})
const present = {
  lo: [entry('127.0.0.1', '127.0.0.1/8', true)],
  eth0: [entry('10.0.0.5', '10.0.0.5/24'), entry('fd00::5', 'fd00::5/64')],
  eth1: [entry('192.168.7.5', '192.168.7.5/16')],
  six: [entry('fd01::5', 'fd01::5/64')],
} as never

const names = (wanted: readonly string[]) =>
  chooseInterfaces(wanted, present).interfaces.map(({ name }) => name)

test('all with IPv4 but loopback, or those that are named', () => {
  assert.deepEqual(names([]), ['eth0', 'eth1'])
  assert.deepEqual(names(['eth1']), ['eth1'])
  assert.deepEqual(names(['10.0.0.5', 'lo']), ['lo', 'eth0'])
  assert.deepEqual(chooseInterfaces(['eth0', 'wlan0'], present).missing, ['wlan0'])
})

test('only what comes from the network of the interface is heard', () => {
  const [eth0] = chooseInterfaces(['eth0'], present).interfaces
  assert.equal(eth0?.isNeighbour('10.0.0.99'), true)
  assert.equal(eth0?.isNeighbour('10.0.1.99'), false)
  assert.equal(eth0?.isNeighbour('fd00::77'), true)
  assert.equal(eth0?.isNeighbour('nonsense'), false)
})
