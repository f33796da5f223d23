/** A network or a server that says nothing, and a server that is not there: handlers are told in time, and a worker stops in time. */

import assert from 'node:assert/strict'
import { describe, mock, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { Link, Unreachable } from '../src/link.js'
import { withNetwork } from './network.js'
import { eventually, PATIENCE_MS } from './server.js'
import { server, staged, withServer } from './stage.js'

const SOON_MS = Math.min(PATIENCE_MS / 15, 3_000)
const BACKENDS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'pushy worker' AND datname = current_database()"

describe('silence', { timeout: 240_000 }, () => {
  withServer()

  for (const what of ['the network', 'the backends']) {
    test(`a handler is told when its lease is over: ${what}`, staged(async (stage) => {
      const { db } = stage
      // Shorter than what a statement has to be answered.
      await db.queue('q', { lease: '2 s', max_attempts: 50 })
      await withNetwork(server.folder, async (network) => {
        let begun = false
        let told = 0
        const connection = { ...db.connection, host: '127.0.0.1', port: network.port }
        const worker = stage.worker({ graceMs: 0 }, connection).handler('q', async (job) => {
          begun = true
          job.progress(0.5)
          await sleep(60_000, undefined, { signal: job.signal }).catch(() => undefined)
          told ||= performance.now()
        })
        void stage.start(worker)
        const id = await db.enqueue()
        await eventually(() => begun, 'it is begun')
        await eventually(async () => (await db.job(id)).fraction, 'whoever extends its lease is connected')
        const pids = what === 'the network' ? [] : (await db.rows(BACKENDS)).map(({ pid }) => Number(pid))
        if (what === 'the network') network.silent = true
        for (const pid of pids) process.kill(pid, 'SIGSTOP')
        const silentAt = performance.now()
        told = 0
        try {
          await eventually(() => told, 'it is told')
          assert.ok(told - silentAt < 2_000 + SOON_MS, String(told - silentAt))
        } finally {
          for (const pid of pids) process.kill(pid, 'SIGCONT')
        }
        network.silent = false
        await worker.stop()
      })
    }))
  }

  for (const atWork of [false, true]) {
    test(`a worker stops in time under a silent network, ${atWork ? 'at work' : 'idle'}`, staged(async (stage) => {
      const { db } = stage
      await db.queue('q', { lease: '30 s' })
      await withNetwork(server.folder, async (network) => {
        let begun = false
        const connection = { ...db.connection, host: '127.0.0.1', port: network.port }
        const worker = stage.worker({ graceMs: atWork ? 1_000 : 60_000 }, connection).handler('q', async (job) => {
          begun = true
          // So that there is something to be opened anew.
          job.progress(0.5)
          await sleep(60_000, undefined, { signal: job.signal })
        })
        if (atWork) await db.enqueue()
        const ended = stage.start(worker)
        if (atWork) await eventually(() => begun, 'it is begun')
        await eventually(async () => db.value("SELECT count(*)::int FROM pg_stat_activity WHERE query LIKE 'CALL pushy.job_claim_wait%'"), 'it waits')
        network.silent = true
        const began = performance.now()
        await worker.stop()
        await ended
        const took = performance.now() - began
        assert.ok(took < (atWork ? 6_000 : 2_000) + SOON_MS / 2, String(took))
        if (atWork) assert.ok(stage.said.some(({ message }) => message.includes('the leases of 1 will run out')))
      })
    }))
  }

  for (const [what, connection] of [['no server', { host: '127.0.0.1', port: 1 }], ['no such database', { database: 'absent' }]] as const) {
    test(`a worker stops at once: ${what}`, staged(async (stage) => {
      const worker = stage.worker({}, { ...stage.db.connection, ...connection }).handler('q', () => undefined)
      const ended = stage.start(worker)
      await eventually(() => stage.said.some(({ message }) => message.startsWith('claiming jobs')), 'it has tried')
      const began = performance.now()
      await worker.stop()
      await ended
      assert.ok(performance.now() - began < SOON_MS)
    }))
  }

  test('a claim that is too long for the network asks for fewer', staged(async (stage) => {
    const { db } = stage
    const { answerMs } = Link
    // One job comes in half a second, ten in five.
    Link.answerMs = 2_000
    await db.queue('q', { lease: '1 hour', max_attempts: 1 })
    await db.rows("SELECT pushy.enqueue('q', to_jsonb(repeat('x', 400000))) FROM generate_series(1, 10)")
    await withNetwork(server.folder, async (network) => {
      network.pauseMs = 10
      const worker = stage.worker({}, { ...db.connection, host: '127.0.0.1', port: network.port }).handler('q', () => undefined)
      void stage.start(worker)
      await eventually(async () => (await db.count('completed')) === 10, 'all are done')
      assert.ok(stage.said.some(({ message }) => message.includes('no answer in 2 s')))
      network.pauseMs = 0
      await worker.stop()
    }).finally(() => (Link.answerMs = answerMs))
  }))

  test('one job that is too long for the network is given more time', staged(async (stage) => {
    const { db } = stage
    const { answerMs } = Link
    // It comes in five seconds.
    Link.answerMs = 2_000
    await db.queue('q', { lease: '1 hour', max_attempts: 1 })
    await db.rows("SELECT pushy.enqueue('q', to_jsonb(repeat('x', 4000000)))")
    await withNetwork(server.folder, async (network) => {
      network.pauseMs = 10
      const worker = stage.worker({}, { ...db.connection, host: '127.0.0.1', port: network.port }).handler('q', { concurrency: 1 }, () => undefined)
      void stage.start(worker)
      await eventually(async () => (await db.count('completed')) === 1, 'it is done')
      assert.ok(stage.said.some(({ message }) => message.includes('one job of queue q was not answered in time')))
      network.pauseMs = 0
      await worker.stop()
    }).finally(() => (Link.answerMs = answerMs))
  }))

  for (const how of ['is too long for the network', 'breaks the connection', 'is refused for its size']) {
    test(`a result that never arrives is left out: it ${how}`, staged(async (stage) => {
      const { db } = stage
      const real = Link.prototype.fetch
      mock.method(Link.prototype, 'fetch', async function (this: Link, ...asked: Parameters<Link['fetch']>) {
        if (!asked[0].includes('jobs_settle(') || !String(asked[1][0]).includes('x'.repeat(1_000_000))) return await real.apply(this, asked)
        this.asked++
        if (how === 'is refused for its size') throw Object.assign(new pg.DatabaseError('too long', 1, 'error'), { code: '54000' })
        throw new Unreachable('no answer', { isLate: how === 'is too long for the network' })
      })
      try {
        await db.queue('q', { lease: '1 hour', max_attempts: 1 })
        await db.enqueueMany(5)
        void stage.start(stage.worker().handler<number>('q', { concurrency: 5 }, (job) => (job.args === 2 ? 'x'.repeat(1_000_000) : 'short')))
        await eventually(async () => (await db.count('completed')) === 5, 'all are done')
      } finally {
        mock.restoreAll()
      }
      assert.deepEqual(await db.rows('SELECT args, attempt FROM pushy.jobs WHERE result IS NULL'), [{ args: 2, attempt: 1 }])
      assert.equal(stage.said.filter(({ message }) => message.startsWith('the result of job')).length, 1)
    }))
  }

  test('a worker that is not answered while it connects stops at once', staged(async (stage) => {
    await withNetwork(server.folder, async (network) => {
      network.silent = true
      const worker = stage.worker({}, { ...stage.db.connection, host: '127.0.0.1', port: network.port }).handler('q', () => undefined)
      const ended = stage.start(worker)
      await sleep(300)
      const began = performance.now()
      await worker.stop()
      await ended
      assert.ok(performance.now() - began < SOON_MS)
    })
  }))
})
