/** One waits, others ring; a ring while nobody waits is kept for the next who does. */
export class Bell {
  #rung = false
  #wake: (() => void) | undefined

  ring(): void {
    this.#rung = true
    this.#wake?.()
  }

  /** Until it is rung, or the time is over. */
  async wait(timeoutMs = Infinity): Promise<void> {
    if (!this.#rung && timeoutMs > 0) {
      await new Promise<void>((resolve) => {
        // The longest timer that there is; who waited for longer waits again.
        const timer = timeoutMs === Infinity ? undefined : setTimeout(resolve, Math.min(timeoutMs, 2 ** 31 - 1))
        this.#wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
      this.#wake = undefined
    }
    this.#rung = false
  }
}
