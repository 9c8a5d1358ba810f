/**
 * The public entry point `@cairn/core/testing`: what a plugin or a program needs for its tests. The kernel and
 * a whole cluster, both in memory and on virtual time; and the parts they stand on.
 */
export { startTestKernel, type TestKernel, type TestKernelOptions, type TestPlugin } from './test-kernel.ts'
export { startTestCluster, type TestCluster, type TestClusterOptions } from './test-cluster.ts'
export { SimulatedClock } from './simulation/simulated-clock.ts'
export { SimulatedDisk } from './simulation/simulated-disk.ts'
export { SimulatedNetwork } from './simulation/simulated-network.ts'
export { SeededRandom } from './simulation/seeded-random.ts'
