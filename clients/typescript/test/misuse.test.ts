/** What a program in JavaScript says wrongly, without types, is refused where it says so. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Worker } from '../src/index.js'

const handle = (): undefined => undefined
const cases: [string, (worker: any) => unknown, RegExp][] = [
  ['no name', (worker) => worker.handler('', handle), /the name of a queue.*not ''/],
  ['a function for a name', (worker) => worker.handler(handle, handle), /the name of a queue/],
  ['no function', (worker) => worker.handler('q', {}), /"q" is no function/],
  ['a number for a function', (worker) => worker.handler('q', {}, 3), /"q" is no function/],
  ['a generator', (worker) => worker.handler('q', function* () {}), /does not yield/],
  ['an async generator', (worker) => worker.handler('q', {}, async function* () {}), /does not yield/],
  ['another name of the lease', (worker) => worker.handler('q', { lease: 5 }, handle), /no option "lease": there are concurrency, prefetch, leaseMs/],
  ['a misspelt option', (worker) => worker.handler('q', { concurency: 5 }, handle), /no option "concurency"/],
  ['text for a lease', (worker) => worker.handler('q', { leaseMs: '30 s' }, handle), /leaseMs is a number of milliseconds, not '30 s'/],
  ['a lease below 0', (worker) => worker.handler('q', { leaseMs: -1 }, handle), /leaseMs is a number of milliseconds, not -1/],
  ['a lease of 0', (worker) => worker.handler('q', { leaseMs: 0 }, handle), /ends with the connection/],
  ['text for a number', (worker) => worker.handler('q', { concurrency: '4' }, handle), /not '4' and 0/],
  ['half a job', (worker) => worker.handler('q', { concurrency: 1.5 }, handle), /not 1.5 and 0/],
  ['an option that no worker has', () => new Worker({}, { grace: 5 } as object), /no option "grace": there are graceMs, metrics, logger/],
  ['a function for a logger', () => new Worker({}, { logger: handle } as object), /a logger has the functions debug, info, warn, error, and this one no debug/],
  ['an object for metrics', () => new Worker({}, { metrics: {} } as object), /metrics is a function/],
  ['text for the grace', () => new Worker({}, { graceMs: '5 s' } as object), /graceMs is a number of milliseconds, not '5 s'/],
]

for (const [what, say, refusal] of cases) {
  test(`${what} is refused`, () => {
    assert.throws(() => say(new Worker({})), refusal)
  })
}

test('options that are left out by name are left out', () => {
  new Worker({}, { graceMs: undefined } as object).handler('q', { concurrency: undefined, leaseMs: undefined } as object, handle)
})
