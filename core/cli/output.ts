/** What commands print: tables and sizes for people, one JSON document with --json. */

export interface Output {
  readonly json: boolean
  /** For people; nothing with --json. */
  line(text?: string): void
  /** The one document of --json; nothing otherwise. */
  document(value: unknown): void
  /** Problems and progress: always standard error. */
  note(text: string): void
  readonly interactive: boolean
}

export function terminalOutput(json: boolean): Output {
  return {
    json,
    line(text = '') {
      if (!json) process.stdout.write(`${text}\n`)
    },
    document(value) {
      if (json) process.stdout.write(`${JSON.stringify(value, null, 2)}\n`)
    },
    note(text) {
      process.stderr.write(`${text}\n`)
    },
    interactive: process.stdout.isTTY === true && !json,
  }
}

const SIZE_UNITS = ['B', 'KB', 'MB', 'GB', 'TB', 'PB'] as const

/** 1.7TB, 180GB, 12.3MB: powers of 1024 with the guide's unit names. */
export function formatSize(bytes: number): string {
  let value = bytes
  let unitIndex = 0
  while (value >= 1024 && unitIndex < SIZE_UNITS.length - 1) {
    value /= 1024
    unitIndex += 1
  }
  const digits = unitIndex === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2
  return `${value.toFixed(digits).replace(/\.0+$/, '')}${SIZE_UNITS[unitIndex]}`
}

/** 2d 4h, 2h 21m, 41s. */
export function formatDuration(milliseconds: number): string {
  const seconds = Math.floor(milliseconds / 1000)
  if (seconds < 60) return `${seconds}s`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 60) return `${minutes}m ${seconds % 60}s`
  const hours = Math.floor(minutes / 60)
  if (hours < 24) return `${hours}h ${minutes % 60}m`
  return `${Math.floor(hours / 24)}d ${hours % 24}h`
}

export function formatPercent(part: number, total: number): string {
  if (total === 0) return part === 0 ? '100%' : '0%'
  const percent = (100 * part) / total
  // Never round up to 100 % or down to 0 % what is not.
  if (percent > 99 && percent < 100) return '99%'
  if (percent > 0 && percent < 1) return '1%'
  return `${Math.round(percent)}%`
}

/** Columns padded to their widest cell; the last one is not padded. */
export function formatTable(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const widths = head.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => (row[column] ?? '').length)),
  )
  const format = (cells: readonly string[]): string =>
    cells
      .map((cell, column) => (column === head.length - 1 ? cell : cell.padEnd(widths[column] ?? 0)))
      .join('  ')
  return [format(head), ...rows.map(format)]
}
