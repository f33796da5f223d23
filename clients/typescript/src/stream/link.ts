/** One connection to the gateway, of either kind. */

import type { Authority } from './authority.js'
import type { Lost } from './closing.js'
import type { Said, Want } from './messages.js'

export interface LinkEvents {
  /** The gateway has let it in: this kind of connection works here. */
  opened(): void
  said(ids: readonly number[], said: Said): void
  /** Nothing of any subscription was missed up to here. */
  position(cursor: string): void
  /** The authority ends soon. */
  expiring(): void
  /** A renewal was refused; the connection is as good as before. */
  renewalRefused(code: string): void
  /** Once, and the last. */
  lost(lost: Lost): void
}

export interface Link {
  readonly transport: 'websocket' | 'sse'
  subscribe(want: Want): void
  unsubscribe(id: number): void
  renew(authority: Authority): void
  /** Asks whether there is still somebody at the other end, for example after a sleep. */
  check(): void
  /** Says nothing more. */
  close(): void
}

/** Until the gateway has answered. */
export const OPEN_MS = 10_000
/** A browser shows no pings of the protocol: after so much silence a message asks, and so soon it is answered. */
export const SILENCE_MS = 30_000
export const ANSWER_MS = 10_000

/** What stops it is answered. The timer keeps no program of Node's running, unless that `holds`. */
export function later(ms: number, act: () => void, holds = false): () => void {
  const timer: unknown = setTimeout(act, ms)
  if (!holds && typeof timer === 'object') (timer as { unref?(): void }).unref?.()
  return () => clearTimeout(timer as ReturnType<typeof setTimeout>)
}
