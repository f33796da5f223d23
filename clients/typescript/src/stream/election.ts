/** Which of the tabs leads: who holds a lock of the browser's, which frees it when the tab ends, however it ends; where there are no Web Locks
 * (a page that came without TLS, for example), who says so every second. */

import { later } from './link.js'

export interface Election {
  /** Another says that it leads, in that term: whether it does. */
  heard(tab: string, term: number): boolean
  /** The leader said that it leaves. */
  left(): void
  stop(): void
}

interface Locks {
  request(name: string, options: { signal?: AbortSignal }, held: () => Promise<void>): Promise<void>
}

export function webLocks(): Locks | undefined {
  return (globalThis as { navigator?: { locks?: Locks } }).navigator?.locks
}

/** Holds a lock of that name, when it is free, until what this answers is called. `refused`: where the page may have none. */
export function hold(locks: Locks, name: string, held: () => void, refused = (): void => undefined): () => void {
  const abort = new AbortController()
  let release = (): void => abort.abort()
  locks
    .request(name, { signal: abort.signal }, () => {
      const released = new Promise<void>((resolve) => (release = resolve))
      held()
      return released
    })
    .catch(() => {
      if (!abort.signal.aborted) refused()
    })
  return () => release()
}

export class ByLock implements Election {
  readonly #release: () => void

  constructor(locks: Locks, name: string, lead: (term: number) => void) {
    this.#release = hold(locks, name, () => lead(0))
  }

  heard(): boolean {
    return true
  }

  left(): void {
    // The lock comes by itself.
  }

  stop(): void {
    this.#release()
  }
}

const BEAT_MS = 1_000
/** Timers of a tab that nobody looks at may be late by a second. */
const MISSED_MS = 3_500

export class ByClaim implements Election {
  readonly #tab: string
  readonly #events: { lead(term: number): void; beat(term: number): void; follow(): void }
  #term = 0
  #leads = false
  #stopTimer = (): void => undefined

  constructor(tab: string, events: { lead(term: number): void; beat(term: number): void; follow(): void }) {
    this.#tab = tab
    this.#events = events
    // Who leads answers sooner.
    this.#claimIn(200 + 200 * Math.random())
  }

  heard(tab: string, term: number): boolean {
    if (this.#leads) {
      const isMine = term < this.#term || (term === this.#term && tab > this.#tab)
      if (isMine) {
        this.#events.beat(this.#term)
        return false
      }
      this.#leads = false
      this.#events.follow()
    } else if (term < this.#term) return false
    this.#term = term
    this.#claimIn(MISSED_MS + 1_000 * Math.random())
    return true
  }

  left(): void {
    if (!this.#leads) this.#claimIn(100 * Math.random())
  }

  stop(): void {
    this.#stopTimer()
  }

  #claimIn(ms: number): void {
    this.#stopTimer()
    this.#stopTimer = later(ms, () => {
      this.#leads = true
      this.#term += 1
      this.#events.lead(this.#term)
      this.#beat()
    })
  }

  #beat(): void {
    this.#stopTimer()
    this.#stopTimer = later(BEAT_MS, () => {
      this.#events.beat(this.#term)
      this.#beat()
    })
  }
}
