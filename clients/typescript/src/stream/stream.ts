/** What was committed, in the order of its cursors, whatever happens to the network. */

import type { Fetch } from './authority.js'
import { Connection, type ConnectionOptions } from './connection.js'
import type { Source, SourceEvents, State, Status } from './source.js'
import { Subscription, type SubscribeOptions } from './subscription.js'
import { SharedConnection } from './shared.js'
import type { WebSocketClass } from './websocket.js'

export interface StreamOptions {
  /** Answers a token (JWT); or */
  readonly token?: Fetch
  /** a ticket, for one connection, of the channels that it is told. */
  readonly ticket?: Fetch
  /** Tabs of one origin that say the same here share one connection, as whom their leader is: say whose it is, `user 7`. */
  readonly share?: string
  /** `auto`: by WebSocket, or where that does not come through by Server-Sent Events. */
  readonly transport?: 'auto' | 'websocket' | 'sse'
  /** Called whenever the state changes. */
  readonly onStatus?: (status: Status) => void
  /** The pauses between attempts: the first, and the longest. */
  readonly firstPauseMs?: number
  readonly mostPauseMs?: number
  /** Instead of the platform's own: `ws` on Node.js 20. */
  readonly WebSocket?: WebSocketClass | undefined
  readonly fetch?: typeof fetch
}

export class Stream {
  readonly #source: Source
  readonly #subscriptions = new Set<Subscription>()
  readonly #watchers = new Set<(status: Status) => void>()
  readonly #leave: () => void
  #status: Status = { state: 'idle' }
  #lastId = 0

  /** `url`: of the gateway, `https://push.example.com`. */
  constructor(url: string | URL, options: StreamOptions) {
    if (options.onStatus) this.#watchers.add(options.onStatus)
    const connection = read(url, options)
    const events: SourceEvents = {
      said: (id, said) => {
        for (const subscription of this.#subscriptions) if (subscription.id === id) subscription.hear(said)
      },
      status: (status) => this.#tell(status),
    }
    const connect = (of: SourceEvents): Source => new Connection(connection, of)
    this.#source = options.share === undefined ? connect(events) : new SharedConnection(`pushy ${connection.url.href} ${options.share}`, connect, events)
    this.#leave = onWake(() => this.#source.wake())
  }

  subscribe(channel: string, options: SubscribeOptions = {}): Subscription {
    if (this.#status.state === 'closed') throw new Error('the stream is closed')
    const subscription: Subscription = new Subscription(this.#source, () => ++this.#lastId, channel, options, () =>
      this.#subscriptions.delete(subscription),
    )
    this.#subscriptions.add(subscription)
    subscription.start()
    return subscription
  }

  get status(): Status {
    return this.#status
  }

  get state(): State {
    return this.#status.state
  }

  /** Calls `watcher` whenever the state changes, until what it answers is called. */
  watch(watcher: (status: Status) => void): () => void {
    this.#watchers.add(watcher)
    return () => this.#watchers.delete(watcher)
  }

  /** All subscriptions, and the connection. */
  close(): void {
    this.#source.close()
  }

  #tell(status: Status): void {
    this.#status = status
    if (status.state === 'closed') {
      this.#leave()
      for (const subscription of [...this.#subscriptions]) subscription.end(status.error)
    }
    for (const watcher of this.#watchers) watcher(status)
  }
}

function read(url: string | URL, options: StreamOptions): ConnectionOptions {
  const { token, ticket, transport = 'auto' } = options
  const fetchAuthority = token ?? ticket
  if (!fetchAuthority || (token && ticket)) throw new Error('say token or ticket: a function that answers one')
  const WebSocket = 'WebSocket' in options ? options.WebSocket : (globalThis as { WebSocket?: WebSocketClass }).WebSocket
  if (transport === 'websocket' && !WebSocket) throw new Error('there is no WebSocket on this platform: pass one, for example of the package ws')
  const base = new URL(url)
  if (!base.pathname.endsWith('/')) base.pathname += '/'
  return {
    url: base,
    kind: token ? 'token' : 'ticket',
    fetchAuthority,
    transport,
    WebSocket,
    fetch: options.fetch ?? fetch,
    firstPauseMs: options.firstPauseMs ?? 250,
    mostPauseMs: options.mostPauseMs ?? 30_000,
  }
}

/** Calls `wake` when a browser says that the network is back, or the page is seen again. */
function onWake(wake: () => void): () => void {
  if (typeof addEventListener !== 'function') return () => undefined
  const seen = (): void => {
    if (typeof document === 'undefined' || document.visibilityState === 'visible') wake()
  }
  addEventListener('online', seen)
  if (typeof document !== 'undefined') document.addEventListener('visibilitychange', seen)
  return () => {
    removeEventListener('online', seen)
    if (typeof document !== 'undefined') document.removeEventListener('visibilitychange', seen)
  }
}
