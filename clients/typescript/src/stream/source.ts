/** Where a stream's subscriptions are fed from: a connection of its own, or one that tabs share. */

import type { Said, StreamError, Want } from './messages.js'

export type State =
  /** Nothing is subscribed. */
  | 'idle'
  /** On the way to the gateway. */
  | 'connecting'
  /** Let in; reads what was said before. */
  | 'resyncing'
  /** What is committed now is heard now. */
  | 'live'
  /** The connection was lost; the next attempt comes after a pause. */
  | 'waiting'
  /** The end: it was closed, or does not come back. */
  | 'closed'

export interface Status {
  readonly state: State
  readonly transport?: 'websocket' | 'sse'
  /** Why it waits, or what was tried in vain. */
  readonly reason?: string
  /** When it is tried again, as of Date.now(). */
  readonly retryAt?: number
  readonly error?: StreamError
}

export interface SourceEvents {
  said(id: number, said: Said): void
  status(status: Status): void
}

export interface Source {
  subscribe(want: Want): void
  unsubscribe(id: number): void
  /** The network may be back, or this computer awake. */
  wake(): void
  close(): void
}
