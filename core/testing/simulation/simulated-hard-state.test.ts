// Proves that the model of the hard state keeps the contract of the real one.

import { testHardStateContract } from '../../platform/hard-state-contract.ts'
import { SimulatedHardState, SimulatedHardStateContents } from './simulated-hard-state.ts'

testHardStateContract('simulated', () => {
  const contents = new SimulatedHardStateContents()
  return Promise.resolve({
    open: () => new SimulatedHardState(contents),
    remove: () => Promise.resolve(),
  })
})
