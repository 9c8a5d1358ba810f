/** Counts what it greets. */
export class Greeter {
  count = 0

  // A parameter property: Node alone would refuse it, the host runs third-party TypeScript through tsx.
  constructor(private readonly greeting: string) {}

  greet(name: string): string {
    this.count += 1
    return `${this.greeting}, ${name}!`
  }
}
