/** The hook, in a component that is shown, changed and taken away. */

import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { test } from 'node:test'
import { createElement, StrictMode } from 'react'
import { WebSocket } from 'ws'
import { useSubscription } from '../src/react.js'
import { Stream, type WebSocketClass } from '../src/stream/index.js'
import { Gateway } from './gateway.js'
import { eventually } from './server.js'
import { server, withServer } from './stage.js'

interface Root {
  update(element: object): void
  unmount(): void
}
const { act, create } = createRequire(import.meta.url)('react-test-renderer') as {
  act(work: () => Promise<void>): Promise<void>
  create(element: object): Root
}
;(globalThis as { IS_REACT_ACT_ENVIRONMENT?: boolean }).IS_REACT_ACT_ENVIRONMENT = true

withServer()

test('a component hears what it has subscribed, as long as it is there', async () => {
  const gateway = await new Gateway(await server.database()).start()
  const stream = new Stream(gateway.url, { token: () => gateway.token(), WebSocket: WebSocket as unknown as WebSocketClass })
  const heard: string[] = []
  const states: string[] = []
  function Page({ topic, channel = 'orders' }: { topic: string; channel?: string }): null {
    const { state, error } = useSubscription(stream, channel, { topics: [topic], onNotice: ({ payload }) => void heard.push(`${topic}: ${payload}`) })
    states.push(error?.code ?? state)
    return null
  }
  const page = (props: { topic: string; channel?: string }): object => createElement(StrictMode, null, createElement(Page, props))
  const notify = (topic: string, payload: string): Promise<unknown> => gateway.db.rows(`SELECT pushy.notify('orders', $1, topic => $2)`, payload, topic)
  const until = (what: () => unknown, name: string): Promise<void> => act(async () => void (await eventually(what, name)))
  let root: Root | undefined
  await act(async () => void (root = create(page({ topic: 'a' }))))
  await until(() => stream.state === 'live', 'live')
  await notify('b', 'not for a')
  await notify('a', '1')
  await until(() => heard.length === 1, 'a notice')
  await act(async () => root?.update(page({ topic: 'b' })))
  await until(async () => (await gateway.db.value(`SELECT '{b}' = topics FROM pushy.sockets`)) && stream.state === 'live', 'the other topic')
  await notify('b', '2')
  await until(() => heard.length === 2, 'another notice')
  assert.deepEqual(heard, ['a: 1', 'b: 2'])
  await act(async () => root?.update(page({ topic: 'b', channel: 'secrets' })))
  await until(() => states.at(-1) === 'denied', 'a refusal')
  await act(async () => root?.unmount())
  await eventually(() => stream.state === 'idle', 'idle')
  stream.close()
})
