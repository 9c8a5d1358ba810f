/** What the files of the tree of many files hold: most are empty, every fiftieth is not. */
const EVERY = 50

export function contentsOf(directory: number, file: number): string {
  return file % EVERY === 0 ? `directory ${directory}, file ${file}\n`.repeat(1 + (file % 7)) : ''
}
