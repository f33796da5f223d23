/** What handlers have logged and the server has not heard yet: told by the settler, or with a completion. */

import type { Held } from './job.js'

export interface Line {
  readonly job: Held
  readonly message: string
  readonly level: string
  /**
   * waiting: the settler tells it next; sending: it does so now; entrusted: it went with the job's completion, or was said behind it, in
   * a transaction of the handler that may roll back; over: the server has it, or it is given up.
   */
  state: 'waiting' | 'sending' | 'entrusted' | 'over'
  /** It may have been heard already, so that being too late is no news. */
  isRepeated: boolean
}

/** Those that still wait, each once, which are the settler's now: others went with a completion meanwhile. */
export function begin(lines: Line[]): Line[] {
  const mine: Line[] = []
  for (const line of lines) {
    if (line.state !== 'waiting') continue
    if (line.job.completing) {
      line.state = 'entrusted' // those before it may come back, and lines are kept in their order
      continue
    }
    line.state = 'sending' // what went with a completion and came back is there twice
    mine.push(line)
  }
  return mine
}

export function end(lines: Line[], state: 'waiting' | 'over'): void {
  for (const line of lines) line.state = state
  if (state === 'waiting') return
  for (const job of new Set(lines.map((line) => line.job))) job.lines = job.lines.filter((line) => line.state !== 'over')
}

export function isSending(job: Held): boolean {
  return job.lines.some((line) => line.state === 'sending')
}

/** What goes with a completion; what went with one before does so again, because that one may have been rolled back. */
export function entrust(job: Held, most: number): Line[] {
  const lines = job.lines.filter((line) => line.state !== 'sending').slice(-most)
  for (const line of lines) {
    line.state = 'entrusted'
    line.isRepeated = true
  }
  return lines
}

/** What went with a completion or was said behind it, and what came after that: kept if that was rolled back, or refused. */
export function takeBack(job: Held): Line[] {
  if (!job.lines.some((line) => line.state === 'entrusted')) return []
  const lines = job.lines.filter((line) => line.state === 'entrusted' || line.state === 'waiting')
  for (const line of lines) line.state = 'waiting'
  return lines
}
