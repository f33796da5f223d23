/** As whom the stream hears: functions of the program's, asked before each connection and before what they gave ends. */

import type { Want } from './messages.js'

type Awaitable<T> = T | Promise<T>

/** Why it is asked for another one. */
export interface Asked {
  /** What is to be heard: what a ticket has to be for. */
  readonly channels: readonly string[]
  readonly topics: readonly string[]
  /** The one before was refused: another is needed, and none that was kept. */
  readonly wasRefused: boolean
}

/** Null: nobody is signed in any more, and the stream ends. */
export type Fetch = (asked: Asked) => Awaitable<string | null>

export interface Authority {
  readonly kind: 'token' | 'ticket'
  readonly text: string
}

/** A function that does not answer is as one that fails. */
const PATIENCE_MS = 30_000

export class SignedOut extends Error {}

export async function fetchAuthority(kind: 'token' | 'ticket', fetch: Fetch, wants: Iterable<Want>, wasRefused: boolean): Promise<Authority> {
  const all = [...wants]
  const asked: Asked = {
    channels: [...new Set(all.map(({ channel }) => channel))],
    topics: [...new Set(all.flatMap(({ topics }) => topics))],
    wasRefused,
  }
  let timer: ReturnType<typeof setTimeout> | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no ${kind} in ${PATIENCE_MS / 1000} s`)), PATIENCE_MS)
  })
  try {
    const text = await Promise.race([(async () => await fetch(asked))(), late])
    if (text === null) throw new SignedOut(`no ${kind}`)
    return { kind, text }
  } finally {
    clearTimeout(timer)
  }
}
