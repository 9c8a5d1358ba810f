/** What `cairn stat` and `cairn top` show of a client. Latencies are of whole operations, in milliseconds. */
export class Counters {
  readBytes = 0
  readOperations = 0
  readLatencySumMs = 0
  readLatencyMaxMs = 0
  writeBytes = 0
  writeOperations = 0
  writeLatencySumMs = 0
  writeLatencyMaxMs = 0
  flushOperations = 0
  flushLatencySumMs = 0
  flushLatencyMaxMs = 0
  readRetries = 0
  badPages = 0
  resentPieces = 0
  epochChanges = 0
  memberReports = 0
  dataLossErrors = 0
  readAheadHits = 0

  readDone(sizeBytes: number, latencyMs: number): void {
    this.readBytes += sizeBytes
    this.readOperations++
    this.readLatencySumMs += latencyMs
    if (latencyMs > this.readLatencyMaxMs) this.readLatencyMaxMs = latencyMs
  }

  writeDone(sizeBytes: number, latencyMs: number): void {
    this.writeBytes += sizeBytes
    this.writeOperations++
    this.writeLatencySumMs += latencyMs
    if (latencyMs > this.writeLatencyMaxMs) this.writeLatencyMaxMs = latencyMs
  }

  flushDone(latencyMs: number): void {
    this.flushOperations++
    this.flushLatencySumMs += latencyMs
    if (latencyMs > this.flushLatencyMaxMs) this.flushLatencyMaxMs = latencyMs
  }

  snapshot(): Record<string, number> {
    return {
      readBytes: this.readBytes,
      readOperations: this.readOperations,
      readLatencyAverageMs: average(this.readLatencySumMs, this.readOperations),
      readLatencyMaxMs: this.readLatencyMaxMs,
      writeBytes: this.writeBytes,
      writeOperations: this.writeOperations,
      writeLatencyAverageMs: average(this.writeLatencySumMs, this.writeOperations),
      writeLatencyMaxMs: this.writeLatencyMaxMs,
      flushOperations: this.flushOperations,
      flushLatencyAverageMs: average(this.flushLatencySumMs, this.flushOperations),
      flushLatencyMaxMs: this.flushLatencyMaxMs,
      readRetries: this.readRetries,
      badPages: this.badPages,
      resentPieces: this.resentPieces,
      epochChanges: this.epochChanges,
      memberReports: this.memberReports,
      dataLossErrors: this.dataLossErrors,
      readAheadHits: this.readAheadHits,
    }
  }
}

function average(sum: number, count: number): number {
  return count === 0 ? 0 : sum / count
}
