/** Rows of jobs that a stranger has locked, to cancel them for example: the worker's other jobs do not feel it. */

import assert from 'node:assert/strict'
import { describe, mock, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { Backoff } from '../src/backoff.js'
import { type Database, eventually, PATIENCE_MS } from './server.js'
import { server, type Stage, staged, withServer } from './stage.js'

async function locked(db: Database, condition: string, meanwhile: () => Promise<void>): Promise<void> {
  const stranger = new pg.Client(db.connection)
  await stranger.connect()
  try {
    await stranger.query('BEGIN')
    await stranger.query(`SELECT id FROM pushy_internal.live_job WHERE ${condition} FOR UPDATE`)
    await meanwhile()
  } finally {
    await stranger.end()
  }
}

/** Every pause is long, as after many attempts. */
function patient(play: (stage: Stage) => Promise<void>): (stage: Stage) => Promise<void> {
  return async (stage) => {
    const paused = mock.method(Backoff.prototype, 'nextMs', () => 60_000)
    try {
      await play(stage)
      await stage.end()
    } finally {
      paused.mock.restore()
    }
  }
}

describe('rows that a stranger has locked', { timeout: 240_000 }, () => {
  withServer()

  for (const says of ['nothing', 'a line']) {
    test(`outcomes of others are told meanwhile: a handler that says ${says}`, staged(patient(async (stage) => {
      const { db } = stage
      await db.queue('q', { lease: '4 s', max_attempts: 3, retry_delay: '0 s' })
      let go = (): void => undefined
      const gone = new Promise<void>((resolve) => (go = resolve))
      await db.enqueueMany(1)
      void stage.start(stage.worker().handler<number>('q', { concurrency: 200 }, async (job) => {
        if (job.args === 1) await gone
        if (says === 'a line') job.log('done')
      }))
      await eventually(async () => (await db.count('running')) === 1, 'it is claimed')
      await locked(db, "args = '1'", async () => {
        go()
        const until = performance.now() + (PATIENCE_MS * 8) / 15
        let others = 0
        for (; performance.now() < until; others++) {
          await db.enqueue(2)
          await sleep(100)
        }
        await eventually(async () => (await db.count('completed')) === others, 'the others end')
        if (says === 'a line') {
          const lines = "SELECT count(*)::int FROM pushy.job_logs l JOIN pushy.jobs j ON j.id = l.job_id WHERE j.args = '2'"
          assert.equal(await db.value(lines), others)
        }
      })
      assert.equal(await db.value("SELECT max(attempt) FROM pushy.jobs WHERE args = '2'"), 1)
    })))
  }

  test('what ends with the worker is told', staged(patient(async (stage) => {
    const { db } = stage
    await db.queue('q', { lease: '1 hour' })
    await db.enqueueMany(20)
    let backoffs = 0
    const metrics = (event: string): void => void (event === 'backoff' && backoffs++)
    const ending = new Set<number>()
    const worker = stage.worker({ metrics }).handler<number>('q', { concurrency: 20 }, async (job) => {
      while (!ending.has(job.args)) await sleep(10)
    })
    const ended = stage.start(worker)
    await eventually(async () => (await db.count('running')) === 20, 'all are claimed')
    await locked(db, "args = '1'", async () => {
      ending.add(1)
      await eventually(() => backoffs > 0, 'it is busy, and waits')
      for (let n = 2; n <= 20; n++) ending.add(n)
      const began = performance.now()
      await worker.stop()
      await ended
      assert.ok(performance.now() - began < PATIENCE_MS * 0.4)
      assert.equal(await db.count('completed'), 19)
    })
  })))

  test('leases of others are extended meanwhile', staged(async (stage) => {
    const { db } = stage
    await db.queue('q', { lease: '10 s', max_attempts: 1 })
    await db.enqueueMany(100)
    let go = (): void => undefined
    const gone = new Promise<void>((resolve) => (go = resolve))
    void stage.start(stage.worker().handler('q', { concurrency: 100 }, () => gone))
    await eventually(async () => (await db.count('running')) === 100, 'all are claimed')
    await locked(db, "args <= '40'", async () => {
      await sleep(15_000)
      assert.equal(await db.value("SELECT count(*)::int FROM pushy.jobs WHERE args > '40' AND state = 'running'"), 60)
      go()
      await eventually(async () => (await db.count('completed')) === 60, 'the others end')
    })
  }))

  // It is the last one that is looked at, and its lease is shorter than twenty milliseconds for each of the others, where the machine is
  // not slow.
  test('one among many that are locked keeps its lease', staged(async (stage) => {
    const { db } = stage
    const patience = PATIENCE_MS / 15_000
    await db.queue('q', { lease: `${4 * patience} s`, max_attempts: 3, retry_delay: '0 s' })
    await db.enqueueMany(201)
    let go = (): void => undefined
    const gone = new Promise<void>((resolve) => (go = resolve))
    void stage.start(stage.worker().handler('q', { concurrency: 201 }, () => gone))
    await eventually(async () => (await db.count('running')) === 201, 'all are claimed')
    await locked(db, "args <> '201'", async () => {
      await sleep(9_000 * patience)
      assert.deepEqual(await db.rows("SELECT attempt, state FROM pushy.jobs WHERE args = '201'"), [{ attempt: 1, state: 'running' }])
      go()
      const began = performance.now()
      await eventually(async () => (await db.count('completed')) === 1, 'it ends')
      assert.ok(performance.now() - began < PATIENCE_MS / 5)
    })
  }))

  test('progress that cannot be stored costs no lease', async () => {
    const db = await server.database("TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
    await staged(async (stage) => {
      await db.queue('q', { lease: '2 s', max_attempts: 3, retry_delay: '0 s' })
      await db.enqueueMany(5)
      void stage.start(stage.worker({}, db.connection).handler<number>('q', { concurrency: 10 }, async (job) => {
        if (job.args === 1) job.progress(0.5, '\u6f22')
        await sleep(5_000)
      }))
      await eventually(async () => (await db.count('completed')) === 5, 'all end')
      assert.equal(await db.value('SELECT max(attempt) FROM pushy.jobs'), 1)
    })()
  })
})
