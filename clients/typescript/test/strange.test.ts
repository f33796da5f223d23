/** Jobs that are strange to read, handlers whose errors cannot be told, roles that have set what they like: the worker goes on. */

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { eventually, PATIENCE_MS } from './server.js'
import { server, staged, withServer } from './stage.js'

/** What jsonb may hold: each text is as the server takes it. */
const STRANGE: Record<string, string> = {
  'an integer of 5,001 digits': '1e5000',
  'the largest': '9.5e131071',
  'the smallest': '1e-16000',
  'the most digits': `1.${'3'.repeat(16000)}`,
  'nested arrays': '['.repeat(3000) + ']'.repeat(3000),
  'nested objects': `${'{"a":'.repeat(2000)}1${'}'.repeat(2000)}`,
  'a surrogate pair': '"\\ud83d\\ude00"',
  controls: '"\\u0001\\u007f\\u2028"',
  'an empty key': '{"": {"": []}}',
  'a key of JavaScript': '{"__proto__": 1, "constructor": 2}',
  nothing: 'null',
  'a long string': `"${'x'.repeat(1_000_000)}"`,
}

describe('strange jobs', { timeout: 240_000 }, () => {
  withServer()

  test('whatever jsonb holds, each job ends', staged(async (stage) => {
    const { db } = stage
    await db.queue('q', { max_attempts: 1, lease: '1 hour' })
    for (const [name, text] of Object.entries(STRANGE)) {
      await db.rows("SELECT pushy.enqueue('q', $1::text::jsonb)", text)
      await db.enqueue({ innocent: name })
    }
    void stage.start(stage.worker().handler('q', { concurrency: 50 }, () => undefined))
    await eventually(async () => (await db.count('completed')) === 2 * Object.keys(STRANGE).length, 'all are completed')
  }))

  test('arguments that cannot be read fail their job', staged(async (stage) => {
    const { db } = stage
    await db.queue('q', { max_attempts: 1 })
    await db.enqueueMany(3)
    const { parse } = JSON
    JSON.parse = (text, ...rest) => {
      if (text === '2') throw new RangeError('no room')
      return parse(text, ...rest) as unknown
    }
    try {
      void stage.start(stage.worker().handler('q', () => undefined))
      await eventually(async () => (await db.count('completed')) === 2 && (await db.count('discarded')) === 1, 'all end')
    } finally {
      JSON.parse = parse
    }
    assert.equal(await db.value("SELECT last_error FROM pushy.jobs WHERE args = '2'"), 'Error: the arguments cannot be read: no room')
  }))

  for (const setting of ["DateStyle = 'German'", 'extra_float_digits = -15', "IntervalStyle = 'sql_standard'"]) {
    test(`what a role has set is no obstacle: ${setting}`, staged(async (stage) => {
      const { db } = stage
      await db.queue('q', { lease: '20 s', max_attempts: 1 })
      await db.rows(`ALTER DATABASE ${db.name} SET ${setting}`)
      const id = await db.enqueue()
      let apart = Infinity
      void stage.start(stage.worker().handler('q', (job) => void (apart = Math.abs(job.enqueuedAt.getTime() - Date.now()))))
      await db.reaches(id, 'completed')
      assert.ok(apart < 4 * PATIENCE_MS, String(apart))
    }))
  }

  test('a statement_timeout that is shorter than a wait is no trouble', staged(async (stage) => {
    const { db } = stage
    await db.queue()
    await db.rows(`ALTER DATABASE ${db.name} SET statement_timeout = '400ms'`)
    void stage.start(stage.worker().handler('q', () => undefined))
    for (let n = 0; n < 3; n++) {
      await sleep(800)
      await db.reaches(await db.enqueue(), 'completed')
    }
    assert.deepEqual(stage.said.filter(({ event, message }) => event === 'trouble' && message.startsWith('claiming')), [])
  }))

  test('leases that end with the session are given back uncharged', staged(async (stage) => {
    const { db } = stage
    await db.queue('q', { lease: '0 s', max_attempts: 1 })
    await db.enqueueMany(5)
    let backoffs = 0
    const worker = stage.worker({ metrics: (event) => void (event === 'backoff' && backoffs++) })
    void stage.start(worker.handler('q', { concurrency: 5 }, () => undefined))
    await eventually(() => backoffs >= 3, 'it asks again')
    await worker.stop()
    const jobs = await db.rows('SELECT state, attempt, count(*)::int AS jobs FROM pushy.jobs GROUP BY 1, 2')
    assert.deepEqual(jobs, [{ state: 'available', attempt: 0, jobs: 5 }])
    assert.equal(stage.said.filter(({ message }) => message.includes('end with the connection')).length, 1)
  }))

  test('an error that cannot be told fails its job and no other', staged(async (stage) => {
    const { db } = stage
    await db.queue('q', { max_attempts: 1 })
    const untold: Record<number, () => unknown> = {
      1: () => Object.create(null),
      2: () => Object.defineProperty(new Error('x'), 'stack', { value: [] }),
      3: () => Object.assign(new Error('x'), { message: Symbol('y') }),
      4: () => Object.defineProperty(new Error('x'), 'cause', { get: () => assert.fail('no cause') }),
      5: () => Object.defineProperty(new Error('x'), 'name', { get: () => assert.fail('no name') }),
    }
    await db.enqueueMany(9)
    void stage.start(stage.worker().handler<number>('q', { concurrency: 1, prefetch: 10 }, async (job) => {
      await sleep(1)
      const what = untold[job.args]
      if (what !== undefined) throw what()
      if (job.args === 6) return { toJSON: () => assert.fail('no JSON') }
      return undefined
    }))
    await eventually(async () => (await db.count('completed')) === 4 && (await db.count('discarded')) === 5, 'all end')
  }))

  test('bytes that are no UTF-8 stop nothing', async () => {
    const db = await server.database("TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'")
    await staged(async (stage) => {
      await db.queue('q', { max_attempts: 1 })
      const id = Number(await db.value("SELECT pushy.enqueue('q', ('\"caf' || chr(233) || '\"')::jsonb)"))
      void stage.start(stage.worker({}, db.connection).handler('q', () => undefined))
      await db.reaches(id, 'completed')
    })()
  })

  test('a line of no level is refused where it is said', staged(async (stage) => {
    const { db } = stage
    await db.queue('q', { max_attempts: 1 })
    const id = await db.enqueue()
    void stage.start(stage.worker().handler('q', (job) => {
      job.log('kept', 'warning')
      job.log('none', 'loud')
    }))
    assert.match((await db.reaches(id, 'discarded')).last_error ?? '', /not loud/)
    assert.deepEqual(await db.logged(id), [['warning', 'kept']])
  }))
})
