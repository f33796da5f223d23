/** The life of a job with a worker outside: what its handler says, and what the server then knows. */

import assert from 'node:assert/strict'
import { describe, mock, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { type Job, LeaseLost } from '../src/index.js'
import { Link } from '../src/link.js'
import { eventually } from './server.js'
import { staged, withServer } from './stage.js'

describe('the life of a job', { timeout: 120_000 }, () => {
  withServer()

  test('a job is run and its result kept', staged(async (stage) => {
    const { db } = stage
    await db.queue()
    void stage.start(stage.worker().handler<{ n: number }>('q', (job) => {
      assert.ok(job.enqueuedAt instanceof Date && Math.abs(Date.now() - job.enqueuedAt.getTime()) < 60_000)
      assert.equal(job.attempt, 1)
      return { doubled: job.args.n * 2 }
    }))
    assert.deepEqual((await db.reaches(await db.enqueue({ n: 21 }), 'completed')).result, { doubled: 42 })
  }))

  test('what a handler returns is awaited, behind a wrapper too', staged(async (stage) => {
    const { db } = stage
    await db.queue()
    const work = async (job: Job): Promise<number> => (await sleep(1), job.id)
    const handlers = [(job: Job) => work(job), async (job: Job) => work(job), (job: Job) => ({ then: (done: (n: number) => void) => done(job.id) })]
    for (const [n, handle] of handlers.entries()) {
      await db.queue(`q${n}`)
      void stage.start(stage.worker().handler(`q${n}`, handle))
      const id = await db.enqueue({}, `q${n}`)
      assert.equal((await db.reaches(id, 'completed')).result, id)
    }
  }))

  test('a generator behind a wrapper fails its job', staged(async (stage) => {
    const { db } = stage
    await db.queue('q', { max_attempts: 1 })
    async function* yields(): AsyncGenerator<number> {
      yield 1
    }
    void stage.start(stage.worker().handler('q', () => yields()))
    assert.match((await db.reaches(await db.enqueue(), 'discarded')).last_error ?? '', /whose body nobody runs/)
  }))

  test('words end the attempt however deep they are said', staged(async (stage) => {
    const { db } = stage
    await db.queue('q', { max_attempts: 2 })
    let snoozes = 0
    void stage.start(stage.worker().handler<{ word: string }>('q', async (job) => {
      await sleep(1)
      if (job.args.word === 'snooze' && snoozes++ === 0) job.snooze(200, 'later')
      if (job.args.word === 'discard') job.discard('no use')
      if (job.args.word === 'retry') job.retryIn(100_000, 'not now')
      if (job.args.word === 'swallowed') {
        try {
          job.discard('no use')
        } catch {}
      }
    }))
    const snoozed = await db.reaches(await db.enqueue({ word: 'snooze' }), 'completed')
    assert.deepEqual([snoozed.attempt, snoozes], [1, 2])
    assert.equal((await db.reaches(await db.enqueue({ word: 'discard' }), 'discarded')).last_error, 'no use')
    assert.equal((await db.reaches(await db.enqueue({ word: 'swallowed' }), 'discarded')).last_error, 'no use')
    const later = await db.enqueue({ word: 'retry' })
    assert.equal((await db.reaches(later, 'retryable')).last_error, 'not now')
    const due = Number(await db.value('SELECT extract(epoch FROM run_at - now()) FROM pushy.jobs WHERE id = $1', later))
    assert.ok(due > 95 && due <= 100, String(due))
  }))

  test('what a handler throws is kept and retried', staged(async (stage) => {
    const { db } = stage
    await db.queue('q', { max_attempts: 2, retry_delay: '0 s' })
    void stage.start(stage.worker().handler<{ how: string }>('q', async (job) => {
      switch (job.args.how) {
        case 'sql':
          return await db.rows('SELECT 1 / 0')
        case 'text':
          throw new TypeError(`bad \0 text \ud800${'x'.repeat(5000)}`)
        default:
          throw 'a string'
      }
    }))
    const ids = new Map<string, number>()
    for (const how of ['sql', 'text', 'string']) ids.set(how, await db.enqueue({ how }))
    const ended = async (how: string) => await db.reaches(ids.get(how) ?? 0, 'discarded')
    const sql = await ended('sql')
    assert.deepEqual([sql.attempt, sql.last_sqlstate], [2, '22012'])
    assert.match(sql.last_error ?? '', /division by zero/)
    const text = await ended('text')
    assert.match(text.last_error ?? '', /^TypeError: bad \\0 text \?xxx/)
    assert.ok((text.last_error ?? '').length <= 1001 && (text.last_detail ?? '').length <= 8000)
    assert.equal((await ended('string')).last_error, 'thrown: a string')
  }))

  test('a result that is no JSON is not kept, and its job not run again', staged(async (stage) => {
    const { db } = stage
    await db.queue('q', { max_attempts: 3, retry_delay: '0 s' })
    const circle: unknown[] = []
    circle.push(circle)
    const results: Record<string, [unknown, RegExp]> = {
      'a big integer': [1n, /BigInt/],
      'one within': [{ n: [1n] }, /BigInt/],
      'a function': [() => 1, /function/],
      'a symbol': [Symbol('s'), /symbol/],
      'no number': [NaN, /number NaN/],
      infinity: [-Infinity, /number -Infinity/],
      'a circle': [circle, /circular/],
      'one that throws': [{ toJSON: () => { throw new Error('will not be told') } }, /will not be told/],
      'U+0000': ['\0', /cannot be stored/],
      'half of a pair': ['\ud800', /cannot be stored/],
    }
    const ran: string[] = []
    void stage.start(stage.worker().handler<string>('q', (job) => {
      ran.push(job.args)
      return results[job.args]?.[0]
    }))
    for (const [name, [, why]] of Object.entries(results)) {
      const id = await db.enqueue(name)
      const job = await db.reaches(id, 'completed')
      assert.deepEqual([job.attempt, job.result], [1, null], name)
      const said = stage.said.filter(({ jobId, message }) => jobId === id && message.includes('is not kept'))
      assert.equal(said.length, 1, name)
      assert.match(said[0]?.message ?? '', why)
    }
    assert.deepEqual(ran.sort(), Object.keys(results).sort())
  }))

  test('what is logged before complete is kept', staged(async (stage) => {
    const { db } = stage
    await db.queue('q', { max_attempts: 3, retry_delay: '0 s', lease: '1 hour' })
    const pool = new pg.Pool(db.connection)
    void stage.start(stage.worker().handler<{ how: string }>('q', { concurrency: 4 }, async (job) => {
      job.log('begun')
      const client = await pool.connect()
      try {
        await client.query('BEGIN')
        job.log('ready, \u00e9')
        job.log(`attempt ${job.attempt}`, 'warning')
        await job.complete(client, 1)
        if (job.args.how === 'rolled back' && job.attempt === 1) throw new Error('before COMMIT')
        await client.query('COMMIT')
      } catch (error) {
        await client.query('ROLLBACK')
        throw error
      } finally {
        client.release()
      }
      if (job.args.how === 'too late') job.log('too late')
    }))
    const attempt = (n: number) => [['info', 'begun'], ['info', 'ready, \u00e9'], ['warning', `attempt ${n}`]]
    for (const id of await Promise.all(Array.from({ length: 40 }, () => db.enqueue({ how: 'well' })))) {
      await db.reaches(id, 'completed')
      assert.deepEqual(await db.logged(id), attempt(1))
    }
    const rolledBack = await db.enqueue({ how: 'rolled back' })
    await db.reaches(rolledBack, 'completed')
    assert.deepEqual(await db.logged(rolledBack), [...attempt(1), ...attempt(2)])
    assert.deepEqual(stage.said.filter(({ event }) => event === 'refused'), [])
    await db.reaches(await db.enqueue({ how: 'too late' }), 'completed')
    await eventually(() => stage.said.find(({ message }) => message.includes('log lines came too late')), 'it is said')
    await pool.end()
  }))

  for (const kind of ['rolled back', 'refused']) {
    test(`lines are kept in the order in which they were said: a completion that is ${kind}`, staged(async (stage) => {
      const { db } = stage
      await db.queue('q', { max_attempts: 1, lease: '1 hour' })
      const worker = stage.worker().handler('q', async (job) => {
        const client = new pg.Client(db.connection)
        await client.connect()
        try {
          await client.query('BEGIN')
          if (kind === 'refused') await client.query('SELECT 1 / 0').catch(() => undefined)
          job.log('first')
          await job.complete(client).catch(() => undefined)
          job.log('second')
          await sleep(500) // the settler would have told it
          job.log('third')
          throw new Error('before COMMIT')
        } finally {
          await client.end()
        }
      })
      void stage.start(worker)
      const id = await db.enqueue()
      await db.reaches(id, 'discarded')
      await worker.stop()
      assert.deepEqual((await db.logged(id)).map(([, message]) => message), ['first', 'second', 'third'])
    }))
  }

  test('logs and progress are kept with the job', staged(async (stage) => {
    const { db } = stage
    await db.queue()
    let go = (): void => undefined
    const gone = new Promise<void>((resolve) => (go = resolve))
    void stage.start(stage.worker().handler('q', async (job) => {
      job.log('begun')
      job.progress(0.5, 'half')
      await gone
      job.log('ending', 'warning')
    }))
    const id = await db.enqueue()
    await eventually(async () => (await db.job(id)).fraction, 'progress')
    const { fraction, message } = await db.job(id)
    assert.deepEqual([fraction, message], [0.5, 'half'])
    go()
    await db.reaches(id, 'completed')
    assert.deepEqual(await db.logged(id), [['info', 'begun'], ['warning', 'ending']])
  }))

  test("complete commits with the handler's own effects", staged(async (stage) => {
    const { db } = stage
    await db.queue('q', { retry_delay: '0 s' })
    await db.rows('CREATE TABLE effects (job_id bigint)')
    const pool = new pg.Pool(db.connection)
    void stage.start(stage.worker().handler('q', async (job) => {
      await assert.rejects(job.complete(pool), /pass the client/)
      const client = await pool.connect()
      try {
        await client.query('BEGIN')
        await client.query('INSERT INTO effects VALUES ($1)', [job.id])
        await job.complete(client, { n: 1 })
        if (job.attempt === 1) throw new Error('after complete, before COMMIT')
        await client.query('COMMIT')
      } catch (error) {
        await client.query('ROLLBACK')
        throw error
      } finally {
        client.release()
      }
    }))
    const job = await db.reaches(await db.enqueue(), 'completed')
    assert.deepEqual([job.attempt, job.result], [2, { n: 1 }])
    assert.equal(await db.value('SELECT count(*)::int FROM effects'), 1)
    await pool.end()
  }))

  test('a cancel reaches the handler', staged(async (stage) => {
    const { db } = stage
    await db.queue('q', { lease: '1 s' })
    const heard: unknown[] = []
    void stage.start(stage.worker().handler('q', async (job) => {
      await sleep(30_000, undefined, { signal: job.signal }).catch((error: unknown) => {
        heard.push(job.signal.reason)
        throw error
      })
    }))
    const id = await db.enqueue()
    await db.reaches(id, 'running')
    assert.equal(await db.value('SELECT pushy.job_cancel($1)', id), true)
    await eventually(() => heard.length, 'the handler hears')
    assert.ok(heard[0] instanceof LeaseLost)
    assert.equal((await db.job(id)).state, 'cancelled')
  }))

  test('leases are extended while handlers run', staged(async (stage) => {
    const { db } = stage
    await db.queue('q', { lease: '1 s', max_attempts: 1 })
    await db.queue('own', { lease: '1 hour', max_attempts: 1 })
    const handle = async (): Promise<void> => await sleep(2500)
    void stage.start(stage.worker().handler('q', { concurrency: 50 }, handle).handler('own', { concurrency: 50, leaseMs: 1000 }, handle))
    await db.enqueueMany(50)
    await db.enqueueMany(50, 'own')
    await eventually(async () => (await db.count('completed')) === 100, '100 jobs')
    assert.equal(await db.value('SELECT max(attempt) FROM pushy.jobs'), 1)
  }))

  test('concurrency is filled and never exceeded', staged(async (stage) => {
    const { db } = stage
    await db.queue()
    await db.enqueueMany(60)
    let running = 0
    let most = 0
    const handle = async (_: Job): Promise<void> => {
      most = Math.max(most, ++running)
      await sleep(20)
      running--
    }
    let largest = 0
    const real = Link.prototype.fetch
    mock.method(Link.prototype, 'fetch', async function (this: Link, ...asked: Parameters<Link['fetch']>) {
      const rows = await real.apply(this, asked)
      if (asked[0].includes('job_claim(')) largest = Math.max(largest, rows.length)
      return rows
    })
    try {
      void stage.start(stage.worker().handler('q', { concurrency: 7, prefetch: 5 }, handle))
      await eventually(async () => (await db.count('completed')) === 60, '60 jobs')
    } finally {
      mock.restoreAll()
    }
    assert.equal(most, 7)
    // A claim fills what is free: not one statement for each job.
    assert.equal(largest, 12)
  }))
})
