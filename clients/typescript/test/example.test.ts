/** The example, run as a program. */

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, test } from 'node:test'
import { eventually } from './server.js'
import { staged, withServer } from './stage.js'

describe('the example', { timeout: 60_000 }, () => {
  withServer()

  test('images are made smaller, each once', staged(async ({ db }) => {
    await db.queue('images', { retry_delay: '0 s', max_attempts: 2 })
    await db.rows('CREATE TABLE thumbnail (url text PRIMARY KEY, bytes int NOT NULL)')
    const web = createServer((request, response) => {
      response.statusCode = request.url === '/cat.jpg' ? 200 : 404
      response.end(Buffer.alloc(1000))
    }).listen(0)
    const origin = `http://127.0.0.1:${(web.address() as AddressInfo).port}`
    const url = `postgresql://postgres@/${db.name}?host=${encodeURIComponent(db.connection.host)}`
    const example = new URL('../examples/images.js', import.meta.url).pathname
    const child = spawn(process.execPath, [example, url], { stdio: 'ignore' })
    const ended = new Promise((resolve) => child.once('exit', resolve))
    try {
      const [cat, dog, none] = [
        await db.enqueue({ url: `${origin}/cat.jpg` }, 'images'),
        await db.enqueue({ url: `${origin}/dog.jpg` }, 'images'),
        await db.enqueue({ url: 'cat' }, 'images'),
      ]
      assert.deepEqual((await db.reaches(cat, 'completed')).result, { bytes: 100 })
      assert.match((await db.reaches(dog, 'discarded')).last_error ?? '', /answered 404/)
      assert.equal((await db.reaches(none, 'discarded')).last_error, 'cat is no URL')
      assert.deepEqual(await db.rows('SELECT * FROM thumbnail'), [{ url: `${origin}/cat.jpg`, bytes: 100 }])
      await eventually(() => child.kill('SIGTERM'), 'a signal')
      assert.equal(await ended, 0)
    } finally {
      child.kill('SIGKILL')
      web.close()
    }
  }))
})
