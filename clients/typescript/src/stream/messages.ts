/** What the gateway says, as docs/gateway-protocol.md has it, and what is kept of a subscription to come back with it. */

/** A notice that was committed. `payload` is a text: of a watch its JSON. */
export interface Notice {
  readonly type: 'notice'
  readonly cursor: string
  readonly channel: string
  readonly topic?: string
  readonly at: string
  readonly payload: string
}

/** Something before `cursor` is missing: look at the tables anew. The stream goes on from here. */
export interface Resync {
  readonly type: 'resync'
  readonly cursor: string
}

/** Who is in a room: all (`state`), or one who came or left. */
export interface Presence {
  readonly type: 'presence'
  readonly channel: string
  readonly topic: string
  readonly event: 'state' | 'join' | 'leave'
  readonly members?: readonly string[]
  readonly subject?: string
}

/** About one subscription. */
export type Said =
  | Notice
  | Resync
  | Presence
  | { readonly type: 'subscribed'; readonly cursor: string; readonly live: boolean }
  | { readonly type: 'live' }
  | { readonly type: 'position'; readonly cursor: string }
  | { readonly type: 'error'; readonly code: string; readonly message: string }
  /** The connection was lost; the subscription comes back with its cursor. */
  | { readonly type: 'away' }

/** A subscription, and how far it has come. */
export interface Want {
  readonly id: number
  readonly channel: string
  readonly topics: readonly string[]
  readonly latest: boolean
  readonly presence: boolean
  /** Where it goes on after the connection is lost. */
  cursor: string | undefined
}

/** Moves a subscription on by what was said of it. */
export function advance(want: Want, said: Said): void {
  switch (said.type) {
    case 'notice':
    case 'resync':
    case 'position':
      want.cursor = said.cursor
      break
    case 'subscribed':
      // One that came with a cursor has still to hear what is between.
      want.cursor ??= said.cursor
  }
}

/** What comes next after a subscription or a connection was refused. */
export class StreamError extends Error {
  override readonly name = 'StreamError'

  constructor(
    /** A word of the protocol: `denied`, `bad_topic`, `unauthenticated`, `bad_message`, … */
    readonly code: string,
    message: string,
  ) {
    super(message)
  }
}
