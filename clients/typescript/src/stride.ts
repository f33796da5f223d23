/**
 * How many of a row of things are tried in one statement, where one that is refused refuses them all: half as many after a refusal, down
 * to one, which is then known; twice as many after each that was taken. So one among a thousand is found in some twenty statements, and
 * where all are refused there is hardly more than one for each.
 */
export class Stride {
  #most = Infinity

  /** Nothing was refused lately: all are tried. */
  get isFree(): boolean {
    return this.#most === Infinity
  }

  of(things: number): number {
    return Math.min(this.#most, things)
  }

  refused(tried: number): void {
    this.#most = Math.max(1, Math.floor(tried / 2))
  }

  /** `left` were there, of which so many were tried. */
  taken(tried: number, left: number): void {
    this.#most = tried === left ? Infinity : Math.max(this.#most, tried) * 2
  }
}
