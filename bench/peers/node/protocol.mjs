// What the bench says to a worker program on stdin, and hears on stdout: see bench/contestants/worker_process.py.
import { createInterface } from 'node:readline'

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()

/** Resolves when it is out: a pipe takes 64 kB at once. */
export const say = (text) => new Promise((written) => process.stdout.write(text + '\n', written))

export async function told(word) {
  const { value, done } = await lines.next()
  if (!done && value !== word) throw new Error(`expected ${word}, got ${value}`)
}

/** Counts the jobs handled; tells the first and the last. */
export class Count {
  constructor(jobs) {
    this.jobs = jobs
    this.handled = 0
  }

  begin() {
    if (!this.began) {
      this.began = true
      say('began')
    }
  }

  end(jobs = 1) {
    this.handled += jobs
    if (this.handled === this.jobs) say('handled')
  }
}

/** Microseconds since 1970, finer than Date.now(). */
export const now = () => Math.round((performance.timeOrigin + performance.now()) * 1000)

export const INSERT = { name: 'one_row', text: 'INSERT INTO written (n) VALUES ($1)' }
