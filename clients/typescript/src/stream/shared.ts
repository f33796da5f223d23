/** One connection for the tabs of a browser: the leader has it, and passes on what is said; the others say what they want, and keep their own
 * cursors, so that whoever leads next goes on where each of them is. */

import { ByClaim, ByLock, type Election, hold, webLocks } from './election.js'
import { later } from './link.js'
import { advance, type Said, StreamError, type Want } from './messages.js'
import type { Source, SourceEvents, Status } from './source.js'

type Told =
  /** A tab is there, and asks who leads. */
  | { readonly kind: 'hello' }
  | { readonly kind: 'leader'; readonly term: number }
  /** What is said of it counts in that era only: since then the tab has said anew what it wants, with its own cursors. */
  | { readonly kind: 'subscribe'; readonly want: Want; readonly era: number }
  | { readonly kind: 'unsubscribe'; readonly id: number }
  | { readonly kind: 'wake' }
  /** Without Web Locks, every now and then. */
  | { readonly kind: 'here' }
  /** To one that was taken for gone: what does it want? */
  | { readonly kind: 'again' }
  | { readonly kind: 'said'; readonly id: number; readonly era: number; readonly said: Said }
  | { readonly kind: 'status'; readonly status: Status; readonly code?: string; readonly message?: string }
  | { readonly kind: 'bye' }

type Message = Told & { readonly from: string; readonly to?: string }

/** A tab that nobody looks at has timers once a minute. */
const HERE_MS = 20_000
const GONE_MS = 180_000

export class SharedConnection implements Source {
  readonly #tab = `${Date.now()}-${Math.random().toString(36).slice(2)}`
  readonly #name: string
  readonly #connect: (events: SourceEvents) => Source
  readonly #events: SourceEvents
  readonly #wants = new Map<number, Want>()
  #channel: BroadcastChannel | undefined
  #election: Election | undefined
  #leader: string | undefined
  #led: Led | undefined
  #stop: (() => void)[] = []
  #term = 0
  #era = 0
  #isClosed = false

  constructor(name: string, connect: (events: SourceEvents) => Source, events: SourceEvents) {
    this.#name = name
    this.#connect = connect
    this.#events = events
    if (typeof addEventListener === 'function') {
      // A page that is kept for the way back comes back without its connections.
      addEventListener('pagehide', () => this.#part())
      addEventListener('pageshow', (event) => {
        if (event.persisted && !this.#isClosed) this.#join()
      })
    }
    this.#join()
  }

  subscribe(want: Want): void {
    this.#wants.set(want.id, want)
    if (this.#led) this.#led.subscribe(this.#tab, { ...want }, 0)
    else if (this.#leader !== undefined) this.#tell({ kind: 'subscribe', want, era: this.#era }, this.#leader)
    else this.#events.status({ state: 'connecting' })
  }

  unsubscribe(id: number): void {
    this.#wants.delete(id)
    if (this.#led) this.#led.unsubscribe(this.#tab, id)
    else if (this.#leader !== undefined) this.#tell({ kind: 'unsubscribe', id }, this.#leader)
  }

  wake(): void {
    if (this.#led) this.#led.wake()
    else if (this.#leader !== undefined) this.#tell({ kind: 'wake' }, this.#leader)
  }

  close(): void {
    this.#end({ state: 'closed' })
  }

  #end(status: Status): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#part()
    this.#events.status(status)
  }

  #join(): void {
    if (this.#channel) return
    this.#channel = new BroadcastChannel(this.#name)
    this.#channel.onmessage = ({ data }: { data: unknown }) => this.#hear(data as Message)
    ;(this.#channel as { unref?(): void }).unref?.()
    const locks = webLocks()
    if (!locks) return this.#stand()
    const own = (): void => {
      if (!this.#channel) return
      this.#election = new ByLock(locks, this.#name, (term) => this.#lead(term))
      this.#tell({ kind: 'hello' })
    }
    // The tab's own lock first: by it the leader knows that the tab is gone.
    this.#stop.push(hold(locks, `${this.#name} tab ${this.#tab}`, own, () => this.#stand()))
  }

  /** Without locks. */
  #stand(): void {
    if (!this.#channel) return
    this.#election = new ByClaim(this.#tab, {
      lead: (term) => this.#lead(term),
      beat: (term) => this.#tell({ kind: 'leader', term }),
      follow: () => this.#follow(),
    })
    this.#tell({ kind: 'hello' })
    this.#stop.push(every(HERE_MS, () => this.#leader !== undefined && this.#tell({ kind: 'here' }, this.#leader)))
  }

  #part(): void {
    if (!this.#channel) return
    this.#tell({ kind: 'bye' })
    this.#follow()
    this.#leader = undefined
    this.#election?.stop()
    this.#election = undefined
    for (const stop of this.#stop.splice(0)) stop()
    this.#channel.close()
    this.#channel = undefined
  }

  #tell(told: Told, to?: string): void {
    this.#channel?.postMessage({ ...told, from: this.#tab, ...(to === undefined ? {} : { to }) })
  }

  #lead(term: number): void {
    if (!this.#channel) return
    this.#term = term
    this.#leader = undefined
    this.#led = new Led(this.#name, this.#connect, {
      said: (tab, id, era, said) => {
        if (tab === this.#tab) this.#said(id, said)
        else this.#tell({ kind: 'said', id, era, said }, tab)
      },
      status: (status) => {
        const { error, ...rest } = status
        this.#tell({ kind: 'status', status: rest, ...(error ? { code: error.code, message: error.message } : {}) })
        if (status.state === 'closed') this.#end(status)
        else this.#events.status(status)
      },
    })
    for (const want of this.#wants.values()) this.#led.subscribe(this.#tab, { ...want }, 0)
    this.#tell({ kind: 'leader', term })
  }

  #follow(): void {
    const led = this.#led
    this.#led = undefined
    led?.close()
  }

  #sayWants(leader: string): void {
    this.#era += 1
    for (const want of this.#wants.values()) this.#tell({ kind: 'subscribe', want, era: this.#era }, leader)
  }

  #said(id: number, said: Said): void {
    const want = this.#wants.get(id)
    if (!want) return
    advance(want, said)
    if (said.type === 'error') this.#wants.delete(id)
    this.#events.said(id, said)
  }

  #hear(message: Message): void {
    const { from, to } = message
    if (to !== undefined && to !== this.#tab) return
    switch (message.kind) {
      case 'hello':
        if (this.#led) {
          this.#tell({ kind: 'leader', term: this.#term }, from)
          this.#tell({ kind: 'status', status: this.#led.status }, from)
        }
        break
      case 'leader':
        if (!this.#election?.heard(from, message.term) || from === this.#leader) return
        this.#leader = from
        this.#sayWants(from)
        break
      case 'said':
        if (from === this.#leader && message.era === this.#era) this.#said(message.id, message.said)
        break
      case 'status': {
        if (from !== this.#leader) return
        const { status, code } = message
        if (status.state === 'closed') {
          // Its tab alone has closed it, where nothing is wrong: another leads.
          if (code !== undefined) this.#end({ ...status, error: new StreamError(code, message.message ?? code) })
        } else this.#events.status(status)
        break
      }
      case 'bye':
        this.#led?.drop(from)
        if (from === this.#leader) {
          this.#leader = undefined
          this.#events.status({ state: 'connecting' })
          this.#election?.left()
        }
        break
      case 'subscribe':
        this.#led?.subscribe(from, message.want, message.era)
        break
      case 'unsubscribe':
        this.#led?.unsubscribe(from, message.id)
        break
      case 'wake':
        this.#led?.wake()
        break
      case 'here':
        if (this.#led && !this.#led.hears(from)) this.#tell({ kind: 'again' }, from)
        break
      case 'again':
        if (from === this.#leader) this.#sayWants(from)
    }
  }
}

interface LedEvents {
  said(tab: string, id: number, era: number, said: Said): void
  status(status: Status): void
}

/** What the leader has: the connection, and for whom each of its subscriptions is. */
class Led {
  status: Status = { state: 'idle' }
  readonly #source: Source
  readonly #tabs = new Map<string, { readonly ids: Map<number, number>; heardAt: number; readonly stop: () => void }>()
  readonly #of = new Map<number, { readonly tab: string; readonly id: number; readonly era: number }>()
  readonly #name: string
  readonly #stop: () => void
  #lastId = 0
  #isClosed = false

  constructor(name: string, connect: (events: SourceEvents) => Source, events: LedEvents) {
    this.#name = name
    this.#source = connect({
      said: (number, said) => {
        const of = this.#of.get(number)
        if (!of) return
        if (said.type === 'error') this.#forget(of.tab, of.id)
        events.said(of.tab, of.id, of.era, said)
      },
      status: (status) => {
        this.status = status
        if (!this.#isClosed) events.status(status)
      },
    })
    this.#stop = webLocks() ? () => undefined : every(HERE_MS, () => this.#dropSilent())
  }

  hears(tab: string): boolean {
    const found = this.#tabs.get(tab)
    if (found) found.heardAt = Date.now()
    return found !== undefined
  }

  subscribe(tab: string, want: Want, era: number): void {
    if (!this.hears(tab)) this.#tabs.set(tab, { ids: new Map(), heardAt: Date.now(), stop: this.#whenGone(tab) })
    // Said anew: from the cursor that the tab has come to, whatever it was sent since.
    this.unsubscribe(tab, want.id)
    const number = ++this.#lastId
    this.#tabs.get(tab)?.ids.set(want.id, number)
    this.#of.set(number, { tab, id: want.id, era })
    this.#source.subscribe({ ...want, id: number })
  }

  unsubscribe(tab: string, id: number): void {
    const number = this.#forget(tab, id)
    if (number !== undefined) this.#source.unsubscribe(number)
  }

  drop(tab: string): void {
    const found = this.#tabs.get(tab)
    if (!found) return
    for (const id of [...found.ids.keys()]) this.unsubscribe(tab, id)
    found.stop()
    this.#tabs.delete(tab)
  }

  wake(): void {
    this.#source.wake()
  }

  close(): void {
    this.#isClosed = true
    this.#stop()
    for (const { stop } of this.#tabs.values()) stop()
    this.#source.close()
  }

  #forget(tab: string, id: number): number | undefined {
    const ids = this.#tabs.get(tab)?.ids
    const number = ids?.get(id)
    ids?.delete(id)
    if (number !== undefined) this.#of.delete(number)
    return number
  }

  /** The tab's own lock is free when it is gone, however it went. */
  #whenGone(tab: string): () => void {
    const locks = webLocks()
    if (!locks) return () => undefined
    let release = (): void => undefined
    release = hold(locks, `${this.#name} tab ${tab}`, () => {
      this.drop(tab)
      release()
    })
    return () => release()
  }

  #dropSilent(): void {
    for (const [tab, { heardAt }] of [...this.#tabs]) {
      if (Date.now() - heardAt > GONE_MS) this.drop(tab)
    }
  }
}

function every(ms: number, act: () => unknown): () => void {
  let stop = (): void => undefined
  const again = (): void => {
    stop = later(ms, () => {
      act()
      again()
    })
  }
  again()
  return () => stop()
}
