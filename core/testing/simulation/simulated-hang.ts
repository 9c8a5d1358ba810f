/** A disk that answers nothing for a while, no error either: the ends of what is asked of it wait. */
export class SimulatedHang {
  #isHanging = false
  #waiting: (() => void)[] = []

  begin(): void {
    this.#isHanging = true
  }

  end(): void {
    this.#isHanging = false
    const waiting = this.#waiting
    this.#waiting = []
    for (const callback of waiting) callback()
  }

  whenAnswered(callback: () => void): void {
    if (this.#isHanging) this.#waiting.push(callback)
    else callback()
  }

  /** The process that asked is dead. The disk may go on hanging. */
  forget(): void {
    this.#waiting = []
  }
}
