// The page: a stream of what was committed, and the proof that nothing of it is missing.
import { Stream } from './client/stream/index.js' // 'pushy-worker/stream' in a program of your own

const $ = (id) => document.getElementById(id)
const post = (path, body = {}) => fetch(path, { method: 'POST', body: JSON.stringify(body) }).then((answer) => answer.json())
const format = new Intl.NumberFormat('en')
const number = { format: (value) => format.format(value).replace('-', '\u2212') }
const SHOWN = 40

// -- a connection that can be cut ---------------------------------------------------------------------------------

let cutting = new AbortController()
const isCut = () => cutting.signal.aborted
const sockets = new Set()

class CuttableSocket extends WebSocket {
  constructor(url) {
    if (isCut()) throw new Error('the connection is cut')
    super(url)
    sockets.add(this)
    this.addEventListener('close', () => sockets.delete(this))
  }
}

function cuttableFetch(url, init = {}) {
  const signals = [cutting.signal, init.signal].filter(Boolean)
  return fetch(url, { ...init, signal: AbortSignal.any(signals) })
}

const cuts = [] // [from, until] as of Date.now(); the last may be open

function toggleCut() {
  if (isCut()) {
    cutting = new AbortController()
    cuts.at(-1)[1] = Date.now()
    // What a browser says when the network is back.
    dispatchEvent(new Event('online'))
  } else {
    cutting.abort(new Error('the connection is cut'))
    cuts.push([Date.now(), undefined])
    for (const socket of sockets) socket.close()
  }
  $('cut').setAttribute('aria-pressed', String(isCut()))
  $('cut').textContent = isCut() ? 'Connect again' : 'Cut the connection'
}

// -- the account --------------------------------------------------------------------------------------------------

const branches = new Map()
const account = { heard: 0, missing: 0, twice: 0, late: 0, resyncs: 0 }
const latencies = []
const BIN_MS = 500
const BINS = 120
const bins = new Map() // number of the half second in which they were published → [live, late]
const waiting = [] // notices that are to be shown
let liveAgainAt = 0 // what was published before came late

function count(branch) {
  const known = branches.get(branch.branch)
  if (!known) return
  const expected = known.now.transactions + 1
  if (branch.transactions > expected) account.missing += branch.transactions - expected
  if (branch.transactions < expected) account.twice += 1
  known.now = branch
  known.glow = 1
  known.isChanged = true
}

function hear(notice, of) {
  const at = Date.parse(notice.at)
  const isLate = at < liveAgainAt
  account.heard += 1
  if (isLate) account.late += 1
  else {
    latencies.push(Math.max(0, Date.now() - at))
    if (latencies.length > 101) latencies.shift()
  }
  const bin = bins.get(Math.floor(at / BIN_MS)) ?? [0, 0]
  bin[isLate ? 1 : 0] += 1
  bins.set(Math.floor(at / BIN_MS), bin)
  waiting.push({ notice, isLate, ...of(notice) })
  if (waiting.length > SHOWN) waiting.shift()
}

function ofBranch({ payload }) {
  const row = JSON.parse(payload).new
  count(row)
  return { what: `branch ${row.branch}: ${number.format(row.transactions)} bookings`, more: `, net ${number.format(row.net)}` }
}

const ofLargeAmount = ({ payload }) => ({ what: payload, isLarge: true })

// -- the stream ---------------------------------------------------------------------------------------------------

const WORDS = { idle: 'Idle', connecting: 'Connecting', resyncing: 'Catching up', live: 'Live', waiting: 'Cut off', closed: 'Closed' }
const WAYS = { websocket: 'by WebSocket', sse: 'by Server-Sent Events' }
let stream

function tell() {
  const { state, transport, retryAt, reason } = stream.status
  if (state === 'live' && $('status').dataset.state !== 'live') {
    liveAgainAt = cuts.length > 0 ? Date.now() : 0
    // pgbench does not outlive a server that is restarted.
    void fetch('/pace').then((answer) => answer.json()).then(check)
  }
  if (state !== 'live') liveAgainAt = cuts.length > 0 ? Infinity : 0
  $('status').dataset.state = state
  // A reader of screens says it once, and not with each tick of the clock beside it.
  if ($('state').textContent !== WORDS[state]) $('state').textContent = WORDS[state]
  const inS = Math.max(0, (retryAt ?? 0) - Date.now()) / 1000
  $('detail').textContent = state === 'waiting' ? `next attempt in ${inS.toFixed(1)} s` : state === 'closed' ? (reason ?? '') : (WAYS[transport] ?? '')
}

async function start() {
  const now = await fetch('/now').then((answer) => answer.json())
  stream ??= new Stream(now.gateway, {
    ticket: async () => (await post('/ticket')).ticket,
    transport: new URLSearchParams(location.search).get('transport') ?? 'auto',
    WebSocket: CuttableSocket,
    fetch: cuttableFetch,
    mostPauseMs: 4_000,
    onStatus: () => stream && tell(),
  })
  for (const branch of now.branches) show(branch)
  choose(now.paces, now.pace)
  // Page and stream are of one snapshot: what is heard after its cursor is what is missing in it.
  const subscriptions = [
    stream.subscribe('branch_kpi', { after: now.cursor, onNotice: (notice) => hear(notice, ofBranch), onResync: again }),
    stream.subscribe('large_amounts', { after: now.cursor, onNotice: (notice) => hear(notice, ofLargeAmount) }),
  ]
  // Something is out of reach (after a very long cut): the figures are read anew, and the stream goes on from them.
  function again() {
    account.resyncs += 1
    for (const subscription of subscriptions) subscription.close()
    void start()
  }
  if (now.pace === 0 && account.resyncs === 0) pace(now.paces[0])
}

const pace = async (wanted) => check(await post('/write', { pace: wanted }))

function check({ pace: paced }) {
  for (const input of document.querySelectorAll('#choices input')) input.checked = Number(input.value) === paced
}

function choose(paces, paced) {
  if ($('choices').children.length > 0) return
  for (const each of [0, ...paces]) {
    const label = document.createElement('label')
    const input = Object.assign(document.createElement('input'), { type: 'radio', name: 'pace', value: String(each), checked: each === paced })
    input.addEventListener('change', () => void pace(each))
    label.append(input, each === 0 ? 'off' : `${number.format(each)}/s`)
    $('choices').append(label)
  }
}

// -- what is seen -------------------------------------------------------------------------------------------------

function show(branch) {
  const known = branches.get(branch.branch)
  if (known) {
    known.now = branch
    known.isChanged = true
    return
  }
  const row = $('rollup').insertRow()
  const head = Object.assign(document.createElement('th'), { scope: 'row', textContent: String(branch.branch) })
  row.append(head)
  const [transactions, turnover, net] = ['number', 'number turnover', 'number'].map((className) => Object.assign(row.insertCell(), { className }))
  branches.set(branch.branch, { now: branch, glow: 0, isChanged: true, row, cells: { transactions, turnover, net } })
}

function paintRollUp() {
  const most = Math.max(1, ...[...branches.values()].map(({ now }) => now.turnover))
  for (const branch of branches.values()) {
    branch.cells.turnover.style.setProperty('--share', (branch.now.turnover / most).toFixed(3))
    if (branch.glow > 0.01 || branch.isChanged) branch.row.style.setProperty('--glow', branch.glow.toFixed(2))
    branch.glow *= 0.93
    if (!branch.isChanged) continue
    branch.isChanged = false
    for (const [name, cell] of Object.entries(branch.cells)) cell.textContent = number.format(branch.now[name])
  }
}

function set(id, text, isBad = false) {
  if ($(id).textContent !== text) $(id).textContent = text
  $(id).toggleAttribute('data-bad', isBad)
}

function paintAccount() {
  set('heard', number.format(account.heard))
  set('missing', number.format(account.missing), account.missing > 0)
  set('twice', number.format(account.twice), account.twice > 0)
  set('late', number.format(account.late))
  if (latencies.length > 0) {
    const median = [...latencies].sort((a, b) => a - b)[latencies.length >> 1]
    set('latency', median < 1 ? '< 1 ms' : `${median.toFixed(0)} ms`)
  }
}

function paintNotices() {
  if (waiting.length === 0) return
  const items = waiting.splice(0).map(({ notice, what, more, isLate, isLarge }) => {
    const item = document.createElement('li')
    const time = Object.assign(document.createElement('time'), { dateTime: notice.at, textContent: new Date(notice.at).toISOString().slice(11, 23) })
    const text = Object.assign(document.createElement('span'), { textContent: what, className: `what${isLarge ? ' large' : ''}` })
    if (more) text.append(Object.assign(document.createElement('span'), { textContent: more, className: 'more' }))
    item.append(time, text)
    if (isLarge) item.append(Object.assign(document.createElement('span'), { textContent: 'large', className: 'tag' }))
    if (isLate) item.classList.add('late')
    return item
  })
  $('notices').prepend(...items.reverse())
  while ($('notices').children.length > SHOWN) $('notices').lastElementChild.remove()
}

function paintMinute() {
  const canvas = $('minute')
  const scale = devicePixelRatio || 1
  const { clientWidth: width, clientHeight: height } = canvas
  if (canvas.width !== Math.round(width * scale)) [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(height * scale)]
  const style = getComputedStyle(document.documentElement)
  const colour = (name) => style.getPropertyValue(`--${name}`)
  const pen = canvas.getContext('2d')
  pen.setTransform(scale, 0, 0, scale, 0, 0)
  pen.clearRect(0, 0, width, height)
  const now = Date.now()
  const first = Math.floor(now / BIN_MS) - BINS + 1
  for (const bin of bins.keys()) if (bin < first) bins.delete(bin)
  const step = width / BINS
  const x = (at) => (at / BIN_MS - first) * step
  const floor = height - 18
  for (const [from, until] of cuts) {
    if ((until ?? now) < first * BIN_MS) continue
    const [left, right] = [Math.max(0, x(from)), x(until ?? now)]
    pen.fillStyle = colour('cut-soft')
    pen.fillRect(left, 0, right - left, floor)
    pen.fillStyle = colour('cut')
    pen.fillRect(left, 0, 1, floor)
    pen.fillRect(right, 0, 1, floor)
  }
  const most = Math.max(4, ...[...bins.values()].map(([live, late]) => live + late))
  for (const [bin, [live, late]] of bins) {
    const left = (bin - first) * step
    const [high, higher] = [(live / most) * (floor - 4), (late / most) * (floor - 4)]
    pen.fillStyle = colour('live')
    pen.fillRect(left + 0.5, floor - high, step - 1, high)
    pen.fillStyle = colour('late')
    pen.fillRect(left + 0.5, floor - high - higher, step - 1, higher)
  }
  pen.fillStyle = colour('line')
  pen.fillRect(0, floor, width, 1)
  pen.fillStyle = colour('dim')
  pen.font = '12px system-ui, sans-serif'
  pen.fillText('one minute ago', 0, height - 3)
  pen.textAlign = 'right'
  pen.fillText('now', width, height - 3)
  pen.textAlign = 'left'
}

function paint() {
  paintRollUp()
  paintAccount()
  paintNotices()
  paintMinute()
  if (stream?.status.state === 'waiting') tell()
  requestAnimationFrame(paint)
}

$('cut').addEventListener('click', toggleCut)
requestAnimationFrame(paint)
await start()
