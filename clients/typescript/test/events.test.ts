/** Events of a stream, however it is torn. */

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { EventParser } from '../src/stream/sse.js'

const SAID = [
  ': a comment\n\n',
  'id: 1\nevent: subscribed\ndata: {"a":1}\n\n',
  'id: 2\r\ndata: first\r\ndata:second\r\n\r\n',
  'data\n\n',
  'id: 3\n\n',
  'retry: 1500\nretry: no number\nevent: close\ndata: ü\n\n',
  'id: with\0zero\rdata: x\r\r',
]
const HEARD = [
  { id: '', name: 'message', data: '' },
  { id: '1', name: 'subscribed', data: '{"a":1}' },
  { id: '2', name: 'message', data: 'first\nsecond' },
  { id: '2', name: 'message', data: '' },
  { id: '3', name: 'message', data: '' },
  { id: '3', name: 'close', data: 'ü' },
  { id: '3', name: 'message', data: 'x' },
]

test('a stream of events means the same wherever it is torn', () => {
  const text = `${SAID.join('')}: the end\n`
  for (let first = 0; first <= text.length; first += 1) {
    for (const second of [first + 1, first + 2, first + 7]) {
      const parser = new EventParser()
      const heard = [text.slice(0, first), text.slice(first, second), text.slice(second)].flatMap((piece) => [...parser.feed(piece)])
      assert.deepEqual([heard, parser.retryMs], [HEARD, 1500], `torn at ${first} and ${second}`)
    }
  }
})
