/** The stream of notices against a gateway that a server runs. */

import assert from 'node:assert/strict'
import { before, describe, test } from 'node:test'
import { WebSocket } from 'ws'
import { type Heard, type State, type Status, Stream, StreamError, type StreamOptions, type WebSocketClass } from '../src/stream/index.js'
import { Gateway, payloads, take, Wire } from './gateway.js'
import { type Database, eventually } from './server.js'
import { server, withServer } from './stage.js'

const OF_WS = WebSocket as unknown as WebSocketClass
const TRANSPORTS = ['websocket', 'sse'] as const

describe('a stream', () => {
  withServer()

  interface Play {
    gateway: Gateway
    wire: Wire
    /** The test's own, in which `web` may read. */
    channel: string
    statuses: Status[]
    notify(...payloads: string[]): Promise<unknown>
    open(options?: Partial<StreamOptions>): Stream
  }

  let shared: Gateway
  let channels = 0
  before(async () => {
    shared = await new Gateway(await server.database()).start('leeway=0s')
  })

  const played = (play: (play: Play, db: Database) => Promise<void>) => async (): Promise<void> => {
    const gateway = shared
    const { db } = gateway
    const wire = await new Wire().start(gateway.port)
    const channel = `channel_${(channels += 1)}`
    await db.rows('SELECT pushy.channel_grant($1, $2)', channel, 'web')
    const streams: Stream[] = []
    const statuses: Status[] = []
    const open = (options: Partial<StreamOptions> = {}): Stream => {
      const authority = 'ticket' in options || 'token' in options ? {} : { token: () => gateway.token() }
      const stream = new Stream(wire.url, { WebSocket: OF_WS, firstPauseMs: 20, onStatus: (status) => void statuses.push(status), ...authority, ...options })
      streams.push(stream)
      return stream
    }
    const notify = (...payloads: string[]): Promise<unknown> =>
      db.rows(`SELECT pushy.notify($1, p, topic => 'order/' || p) FROM unnest($2::text[]) WITH ORDINALITY AS u (p, n) ORDER BY n`, channel, payloads)
    try {
      await play({ gateway, wire, channel, statuses, notify, open }, db)
    } finally {
      for (const stream of streams) stream.close()
      wire.stop()
    }
  }

  for (const transport of TRANSPORTS) {
    test(`${transport}: what was committed is heard, in order, from the cursor on`, played(async ({ gateway, channel, notify, open }) => {
      const after = await gateway.position()
      await notify('a', 'b')
      const subscription = open({ transport }).subscribe(channel, { after })
      assert.deepEqual(payloads(await take(subscription[Symbol.asyncIterator](), 2)), ['a', 'b'])
      await eventually(() => subscription.state === 'live', 'live')
      await notify('c')
      const [last] = await take(subscription[Symbol.asyncIterator](), 1)
      assert.deepEqual([last?.type === 'notice' && last.topic, last?.type === 'notice' && last.channel], ['order/c', channel])
    }))

    test(`${transport}: functions are called, and topics are chosen`, played(async ({ gateway, channel, notify, open }) => {
      const heard: string[] = []
      const subscription = open({ transport }).subscribe(channel, { topics: ['order/b', 'order/c'], onNotice: ({ payload }) => void heard.push(payload) })
      await subscription.ready
      await notify('a', 'b', 'c', 'd')
      await eventually(() => heard.length === 2, 'two notices')
      assert.deepEqual(heard, ['b', 'c'])
    }))

    test(`${transport}: it goes on after cuts, a gateway that ended, and a server that was restarted`, played(async ({ gateway, wire, channel, notify, open, statuses }, db) => {
      const stream = open({ transport, token: () => gateway.token({ sub: 'ann' }) })
      const subscription = stream.subscribe(channel)
      await subscription.ready
      const iterator = subscription[Symbol.asyncIterator]()
      const cuts = [
        () => wire.cut(),
        () => db.rows(`SELECT pushy.socket_close('ann')`),
        async () => {
          server.stop()
          server.start()
          await gateway.ready()
        },
      ]
      let number = 0
      for (const cut of cuts) {
        await notify(`${number}.before`)
        assert.deepEqual(payloads(await take(iterator, 1)), [`${number}.before`])
        wire.isCut = true
        await cut()
        await notify(`${number}.while`)
        wire.isCut = false
        assert.deepEqual(payloads(await take(iterator, 1)), [`${number}.while`])
        number += 1
      }
      await eventually(() => stream.state === 'live', 'live')
      const states = statuses.map(({ state }) => state)
      assert.deepEqual(states.slice(0, 3), ['connecting', 'resyncing', 'live'] satisfies State[])
      assert.ok(states.includes('waiting'))
    }))

    test(`${transport}: what is refused says why, and the others go on`, played(async ({ channel, notify, open }) => {
      const stream = open({ transport })
      const good = stream.subscribe(channel)
      const bad = stream.subscribe('secrets')
      await good.ready
      await assert.rejects(bad.ready, (error: StreamError) => error instanceof StreamError && error.code === 'denied')
      await assert.rejects(take(bad, 1), /secrets|denied|may/)
      await assert.rejects(stream.subscribe(channel, { after: 'no cursor' }).ready, (error: StreamError) => error.code === 'bad_cursor')
      await notify('a')
      assert.deepEqual(payloads(await take(good, 1)), ['a'])
    }))

    test(`${transport}: a grant that is revoked ends its subscription`, played(async ({ channel, open }, db) => {
      const errors: string[] = []
      const subscription = open({ transport }).subscribe(channel, { onNotice: () => undefined, onError: ({ code }) => void errors.push(code) })
      await subscription.ready
      await db.rows(`SELECT pushy.channel_revoke('${channel}', 'web')`)
      await eventually(() => errors.length > 0, 'an error')
      assert.deepEqual([errors, subscription.state], [['denied'], 'closed'])
    }))

    test(`${transport}: tickets are asked for, one for each connection`, played(async ({ gateway, wire, channel, notify, open }) => {
      const asked: string[] = []
      const stream = open({ transport, ticket: ({ channels }) => {
        asked.push(channels.join())
        return gateway.ticket(channel, 'ann')
      } })
      const subscription = stream.subscribe(channel)
      await subscription.ready
      wire.cut()
      await notify('a')
      assert.deepEqual(payloads(await take(subscription, 1)), ['a'])
      assert.deepEqual(asked, [channel, channel])
    }))

    test(`${transport}: a token is renewed before it ends, and nothing is missed`, played(async ({ gateway, channel, notify, open, statuses }) => {
      let given = 0
      const stream = open({ transport, token: () => {
        given += 1
        return gateway.token({ sub: 'ann', exp: Math.floor(Date.now() / 1000) + 4 })
      } })
      const subscription = stream.subscribe(channel)
      await subscription.ready
      await eventually(() => given >= 3, 'a third token')
      await notify('a', 'b')
      assert.deepEqual(payloads(await take(subscription, 2)), ['a', 'b'])
      const reasons = statuses.filter(({ state }) => state === 'waiting').map(({ reason }) => reason)
      assert.deepEqual(new Set(reasons), new Set(transport === 'sse' ? ['expired'] : []))
    }))

    test(`${transport}: what is out of reach is told`, played(async ({ gateway, channel, notify, open }, db) => {
      const after = await gateway.position()
      await notify('a')
      await db.rows(`SELECT pushy.channel_revoke('${channel}', 'web')`)
      await db.rows(`SELECT pushy.channel_grant('${channel}', 'web')`)
      const resyncs: string[] = []
      const subscription = open({ transport }).subscribe(channel, { after, onResync: ({ type }) => void resyncs.push(type) })
      const iterator = subscription[Symbol.asyncIterator]()
      const [first] = await take(iterator, 1)
      await subscription.ready
      await notify('b')
      const [second] = await take(iterator, 1)
      assert.deepEqual([payloads([first!, second!]), resyncs], [['resync', 'b'], ['resync']])
    }))

    test(`${transport}: a reader that is slow is held up, keeps a bounded buffer, and misses nothing`, played(async ({ channel, notify, open }) => {
      const stream = open({ transport })
      const subscription = stream.subscribe(channel, { buffer: 10 })
      await subscription.ready
      const first = subscription.id
      const all = Array.from({ length: 300 }, (_, n) => String(n))
      for (let n = 0; n < all.length; n += 30) await notify(...all.slice(n, n + 30))
      await eventually(() => subscription.id !== first, 'a pause')
      assert.deepEqual(payloads(await take(subscription[Symbol.asyncIterator](), 300)), all)
      await eventually(() => subscription.state === 'live', 'live')
      assert.equal(subscription.cursor !== undefined, true)
    }))

    test(`${transport}: nobody is signed in any more, and it ends`, played(async ({ gateway, wire, channel, open }) => {
      let signedIn = true
      const stream = open({ transport, token: () => (signedIn ? gateway.token() : null) })
      const subscription = stream.subscribe(channel)
      await subscription.ready
      signedIn = false
      wire.cut()
      await assert.rejects(take(subscription, 1), (error: StreamError) => error.code === 'unauthenticated')
      assert.equal(stream.state, 'closed')
    }))

    test(`${transport}: a token that is none is not tried for ever`, played(async ({ channel, open }) => {
      const refused: boolean[] = []
      const stream = open({ transport, mostPauseMs: 40, token: ({ wasRefused }) => {
        refused.push(wasRefused)
        return 'x.y.z'
      } })
      await assert.rejects(stream.subscribe(channel).ready, (error: StreamError) => error.code === 'unauthenticated')
      assert.deepEqual(refused, [false, true, true, true, true])
    }))
  }

  for (const transport of TRANSPORTS) {
    test(`${transport}: a token that is always the same is no reason to come back ever faster`, played(async ({ gateway, wire, channel, open }) => {
      const always = gateway.token({ exp: Math.floor(Date.now() / 1000) + 2 })
      const stream = open({ transport, mostPauseMs: 200, token: () => always })
      const subscription = stream.subscribe(channel)
      await assert.rejects(take(subscription, 1), (error: StreamError) => error.code === 'unauthenticated')
      assert.ok(wire.connections < 40, `${wire.connections} connections`)
    }))
  }

  test('where no WebSocket comes through, it goes on by Server-Sent Events', played(async ({ gateway, wire, channel, notify, open }) => {
    wire.refusesUpgrades = true
    const stream = open()
    const subscription = stream.subscribe(channel)
    await subscription.ready
    assert.deepEqual([stream.status.transport, wire.upgrades], ['sse', 2])
    await notify('a')
    assert.deepEqual(payloads(await take(subscription, 1)), ['a'])
  }))

  test('a message that the gateway does not know ends it: it does not come back', played(async ({ wire, channel, open }) => {
    const sent: WebSocket[] = []
    class Spied extends WebSocket {
      constructor(url: string) {
        super(url)
        sent.push(this)
      }
    }
    const stream = open({ WebSocket: Spied as unknown as WebSocketClass })
    const subscription = stream.subscribe(channel)
    await subscription.ready
    sent[0]?.send('{"type":"nonsense"}')
    await assert.rejects(take(subscription, 1), (error: StreamError) => error.code === 'bad_message')
    assert.deepEqual([stream.state, wire.connections], ['closed', 1])
  }))

  test('a token of somebody else is another connection', played(async ({ gateway, wire, channel, notify, open }) => {
    let number = 0
    const stream = open({ token: () => gateway.token({ sub: `s${(number += 1)}`, exp: Math.floor(Date.now() / 1000) + 4 }) })
    const subscription = stream.subscribe(channel)
    await subscription.ready
    await eventually(() => wire.connections >= 2, 'another connection')
    await notify('a')
    assert.deepEqual(payloads(await take(subscription, 1)), ['a'])
  }))

  test('who is in the room is told', played(async ({ gateway, channel, open }) => {
    const said: string[] = []
    const join = async (sub: string): Promise<void> => {
      const stream = open({ token: () => gateway.token({ sub }) })
      await stream.subscribe(channel, { topics: ['lobby'], presence: true, onNotice: () => undefined,
        onPresence: ({ event, members, subject }) => void said.push(`${sub} ${event} ${members?.join() ?? subject}`) }).ready
    }
    await join('ann')
    await eventually(() => said.length === 1, 'who is there')
    await join('bob')
    await eventually(() => said.includes('ann join bob'), 'that bob came')
  }))

  test('streams that share have one connection, and another leads when the leader is closed', played(async ({ wire, channel, notify, open }) => {
    const first = open({ share: 'ann' })
    const one = first.subscribe(channel)
    await one.ready
    const second = open({ share: 'ann' })
    const two = second.subscribe(channel, { topics: ['order/*'] })
    await two.ready
    const third = open({ share: 'bob' })
    await third.subscribe(channel).ready
    assert.equal(wire.connections, 2)
    await notify('a')
    const iterator = two[Symbol.asyncIterator]()
    assert.deepEqual([payloads(await take(one, 1)), payloads(await take(iterator, 1))], [['a'], ['a']])
    first.close()
    await notify('b')
    assert.deepEqual(payloads(await take(iterator, 1)), ['b'])
    assert.deepEqual([first.state, second.state, wire.connections], ['closed', 'live', 3])
  }))

  test('a stream without a reader keeps no connection', played(async ({ channel, open }, db) => {
    const stream = open()
    const subscription = stream.subscribe(channel)
    await subscription.ready
    subscription.close()
    await eventually(() => stream.state === 'idle', 'idle')
    await eventually(async () => Number(await db.value('SELECT count(*) FROM pushy.sockets WHERE $1 = ANY (channels)', channel)) === 0, 'no socket')
  }))

  test('the end of a loop ends its subscription, and a signal does', played(async ({ channel, notify, open }) => {
    const stream = open()
    const subscription = stream.subscribe(channel)
    await subscription.ready
    await notify('a')
    const heard: Heard[] = []
    for await (const one of subscription) {
      heard.push(one)
      break
    }
    const aborted = new AbortController()
    const other = stream.subscribe(channel, { signal: aborted.signal })
    await other.ready
    aborted.abort()
    assert.deepEqual([heard.length, subscription.state, other.state], [1, 'closed', 'closed'])
  }))
})
