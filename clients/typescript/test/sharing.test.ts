/** Tabs that share, without Web Locks, while another says again and again that it leads: whatever of what is said they take for good, none of them
 * has a gap, and nothing twice. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Want } from '../src/stream/messages.js'
import { SharedConnection } from '../src/stream/shared.js'
import type { Source, SourceEvents } from '../src/stream/source.js'
import { eventually } from './server.js'

Object.defineProperty(globalThis, 'navigator', { value: {}, configurable: true })

/** What every connection hears, from its cursor on. */
class Log {
  last = 0
  readonly #sources = new Set<{ events: SourceEvents; wants: Map<number, Want> }>()

  readonly connect = (events: SourceEvents): Source => {
    const source = { events, wants: new Map<number, Want>() }
    this.#sources.add(source)
    return {
      subscribe: (want) => {
        source.wants.set(want.id, want)
        events.status({ state: 'live' })
        for (let n = Number(want.cursor) + 1; n <= this.last; n += 1) this.#say(source, want, n)
      },
      unsubscribe: (id) => void source.wants.delete(id),
      wake: () => undefined,
      close: () => void this.#sources.delete(source),
    }
  }

  get leaders(): number {
    return [...this.#sources].filter(({ wants }) => wants.size > 0).length
  }

  publish(): void {
    this.last += 1
    for (const source of this.#sources) for (const want of [...source.wants.values()]) this.#say(source, want, this.last)
  }

  #say({ events }: { events: SourceEvents }, { id }: Want, n: number): void {
    events.said(id, { type: 'notice', cursor: String(n), channel: 'c', at: '', payload: String(n) })
  }
}

test('whoever leads, and however often that is another, each tab hears each notice once and in order', async () => {
  const log = new Log()
  const name = `sharing ${process.pid}`
  const tabs = Array.from({ length: 4 }, () => {
    const heard: number[] = []
    const tab = new SharedConnection(name, log.connect, {
      said: (_, said) => void (said.type === 'notice' && heard.push(Number(said.payload))),
      status: () => undefined,
    })
    tab.subscribe({ id: 1, channel: 'c', topics: [], latest: false, presence: false, cursor: '0' })
    return { tab, heard }
  })
  const everybodyHasAll = (of = tabs) => eventually(() => of.every(({ heard }) => heard.at(-1) === log.last), 'all to have heard all')
  const wire = new BroadcastChannel(name)
  let term = 0
  wire.onmessage = ({ data }: MessageEvent<{ kind: string; term?: number }>) => void (data.kind === 'leader' && (term = Math.max(term, data.term ?? 0)))
  try {
    log.publish()
    await everybodyHasAll()
    for (let round = 0; round < 300; round += 1) {
      // Of the same term, so that the true leader says at once that it is one.
      wire.postMessage({ kind: 'leader', from: 'z', term })
      for (let n = round % 4; n > 0; n -= 1) log.publish()
      if (round % 3 === 0) await sleep(1)
      log.publish()
    }
    await everybodyHasAll()
    // And one after the other leaves.
    for (let left = tabs.length - 1; left > 0; left -= 1) {
      tabs[tabs.length - 1 - left]?.tab.close()
      log.publish()
      await everybodyHasAll(tabs.slice(tabs.length - left))
      assert.equal(log.leaders, 1)
    }
    for (const { heard } of tabs) assert.deepEqual(heard, Array.from({ length: heard.length }, (_, n) => n + 1))
  } finally {
    for (const { tab } of tabs) tab.close()
    wire.close()
  }
})
