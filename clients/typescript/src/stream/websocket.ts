/** A WebSocket with all subscriptions on it. */

import type { Authority } from './authority.js'
import type { Lost } from './closing.js'
import { ANSWER_MS, later, type Link, type LinkEvents, OPEN_MS, SILENCE_MS } from './link.js'
import type { Said, Want } from './messages.js'

/** What is used of a WebSocket: the browser's own, Node's, that of `ws`. */
export interface WebSocketLike {
  onopen: ((event: never) => unknown) | null
  onmessage: ((event: never) => unknown) | null
  onclose: ((event: never) => unknown) | null
  onerror: ((event: never) => unknown) | null
  send(text: string): void
  close(): void
}
export type WebSocketClass = new (url: string) => WebSocketLike

interface Message {
  readonly type: string
  readonly id?: number
  readonly ids?: readonly number[]
  readonly cursor?: string
  readonly code?: string
}

export class WebSocketLink implements Link {
  readonly transport = 'websocket'
  readonly #socket: WebSocketLike
  readonly #events: LinkEvents
  readonly #waiting: Want[] = []
  #isIn = false
  #isOver = false
  #stopTimer: () => void

  constructor(WebSocket: WebSocketClass, url: URL, authority: Authority, events: LinkEvents) {
    this.#events = events
    const address = new URL('socket', url)
    address.protocol = address.protocol.replace('http', 'ws')
    this.#socket = new WebSocket(address.href)
    this.#stopTimer = later(OPEN_MS, () => this.#lose({ reason: 'no answer' }))
    this.#socket.onopen = () => {
      this.#authenticate(authority)
      // Who has a token need not wait for the answer; a ticket is asked about first.
      if (authority.kind === 'token') this.#subscribeAll()
    }
    this.#socket.onmessage = ({ data }: { data: unknown }) => this.#hear(String(data))
    this.#socket.onclose = ({ code, reason }: { code: number; reason: string }) => this.#lose(ofClose(code, reason))
    // The close that follows says more.
    this.#socket.onerror = () => undefined
  }

  subscribe(want: Want): void {
    this.#waiting.push(want)
    if (this.#isIn) this.#subscribeAll()
  }

  unsubscribe(id: number): void {
    const waiting = this.#waiting.findIndex((want) => want.id === id)
    if (waiting >= 0) this.#waiting.splice(waiting, 1)
    else this.#send({ type: 'unsubscribe', id })
  }

  renew(authority: Authority): void {
    this.#authenticate(authority)
  }

  check(): void {
    if (!this.#isIn || this.#isOver) return
    this.#send({ type: 'ping' })
    this.#stopTimer()
    this.#stopTimer = later(ANSWER_MS, () => this.#lose({ reason: 'silent' }))
  }

  close(): void {
    this.#isOver = true
    this.#stopTimer()
    this.#socket.close()
  }

  #authenticate({ kind, text }: Authority): void {
    this.#send({ type: 'auth', [kind]: text })
  }

  #subscribeAll(): void {
    this.#isIn = true
    for (const { id, channel, topics, cursor, latest, presence } of this.#waiting.splice(0)) {
      this.#send({ type: 'subscribe', id, channel, topics, latest, presence, ...(cursor === undefined ? {} : { after: cursor }) })
    }
  }

  #send(message: object): void {
    // A socket that is closing says so by itself.
    if (!this.#isOver) this.#socket.send(JSON.stringify(message))
  }

  #hear(text: string): void {
    if (this.#isOver) return
    this.#stopTimer()
    this.#stopTimer = later(SILENCE_MS, () => this.check())
    const message = JSON.parse(text) as Message
    switch (message.type) {
      case 'authenticated':
        this.#subscribeAll()
        this.#events.opened()
        break
      case 'notice': {
        const { ids = [], ...notice } = message
        this.#events.said(ids, notice as Said)
        break
      }
      case 'position':
        if (message.cursor !== undefined) this.#events.position(message.cursor)
        break
      case 'expiring':
        this.#events.expiring()
        break
      case 'pong':
      case 'unsubscribed':
        break
      case 'error':
        if (message.id === undefined) this.#events.renewalRefused(message.code ?? '')
        else this.#events.said([message.id], message as unknown as Said)
        break
      default: {
        const { id, ...said } = message
        if (id !== undefined) this.#events.said([id], said as Said)
      }
    }
  }

  #lose(lost: Lost): void {
    if (this.#isOver) return
    this.close()
    this.#events.lost(lost)
  }
}

/** The frame's reason is JSON of the gateway's, or of somebody on the way. */
function ofClose(code: number, text: string): Lost {
  try {
    const { reason, retry_ms } = JSON.parse(text) as { reason: string; retry_ms?: number }
    return { code, reason, ...(retry_ms === undefined ? {} : { retryMs: retry_ms }) }
  } catch {
    return { code, reason: text || 'the connection was lost' }
  }
}
