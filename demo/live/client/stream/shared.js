/** One connection for the tabs of a browser: the leader has it, and passes on what is said; the others say what they want, and keep their own
 * cursors, so that whoever leads next goes on where each of them is. */
import { ByClaim, ByLock, hold, webLocks } from './election.js';
import { later } from './link.js';
import { advance, StreamError } from './messages.js';
/** A tab that nobody looks at has timers once a minute. */
const HERE_MS = 20_000;
const GONE_MS = 180_000;
export class SharedConnection {
    #tab = `${Date.now()}-${Math.random().toString(36).slice(2)}`;
    #name;
    #connect;
    #events;
    #wants = new Map();
    #channel;
    #election;
    #leader;
    #led;
    #stop = [];
    #term = 0;
    #era = 0;
    #isClosed = false;
    constructor(name, connect, events) {
        this.#name = name;
        this.#connect = connect;
        this.#events = events;
        if (typeof addEventListener === 'function') {
            // A page that is kept for the way back comes back without its connections.
            addEventListener('pagehide', () => this.#part());
            addEventListener('pageshow', (event) => {
                if (event.persisted && !this.#isClosed)
                    this.#join();
            });
        }
        this.#join();
    }
    subscribe(want) {
        this.#wants.set(want.id, want);
        if (this.#led)
            this.#led.subscribe(this.#tab, { ...want }, 0);
        else if (this.#leader !== undefined)
            this.#tell({ kind: 'subscribe', want, era: this.#era }, this.#leader);
        else
            this.#events.status({ state: 'connecting' });
    }
    unsubscribe(id) {
        this.#wants.delete(id);
        if (this.#led)
            this.#led.unsubscribe(this.#tab, id);
        else if (this.#leader !== undefined)
            this.#tell({ kind: 'unsubscribe', id }, this.#leader);
    }
    wake() {
        if (this.#led)
            this.#led.wake();
        else if (this.#leader !== undefined)
            this.#tell({ kind: 'wake' }, this.#leader);
    }
    close() {
        this.#end({ state: 'closed' });
    }
    #end(status) {
        if (this.#isClosed)
            return;
        this.#isClosed = true;
        this.#part();
        this.#events.status(status);
    }
    #join() {
        if (this.#channel)
            return;
        this.#channel = new BroadcastChannel(this.#name);
        this.#channel.onmessage = ({ data }) => this.#hear(data);
        this.#channel.unref?.();
        const locks = webLocks();
        if (!locks)
            return this.#stand();
        const own = () => {
            if (!this.#channel)
                return;
            this.#election = new ByLock(locks, this.#name, (term) => this.#lead(term));
            this.#tell({ kind: 'hello' });
        };
        // The tab's own lock first: by it the leader knows that the tab is gone.
        this.#stop.push(hold(locks, `${this.#name} tab ${this.#tab}`, own, () => this.#stand()));
    }
    /** Without locks. */
    #stand() {
        if (!this.#channel)
            return;
        this.#election = new ByClaim(this.#tab, {
            lead: (term) => this.#lead(term),
            beat: (term) => this.#tell({ kind: 'leader', term }),
            follow: () => this.#follow(),
        });
        this.#tell({ kind: 'hello' });
        this.#stop.push(every(HERE_MS, () => this.#leader !== undefined && this.#tell({ kind: 'here' }, this.#leader)));
    }
    #part() {
        if (!this.#channel)
            return;
        this.#tell({ kind: 'bye' });
        this.#follow();
        this.#leader = undefined;
        this.#election?.stop();
        this.#election = undefined;
        for (const stop of this.#stop.splice(0))
            stop();
        this.#channel.close();
        this.#channel = undefined;
    }
    #tell(told, to) {
        this.#channel?.postMessage({ ...told, from: this.#tab, ...(to === undefined ? {} : { to }) });
    }
    #lead(term) {
        if (!this.#channel)
            return;
        this.#term = term;
        this.#leader = undefined;
        this.#led = new Led(this.#name, this.#connect, {
            said: (tab, id, era, said) => {
                if (tab === this.#tab)
                    this.#said(id, said);
                else
                    this.#tell({ kind: 'said', id, era, said }, tab);
            },
            status: (status) => {
                const { error, ...rest } = status;
                this.#tell({ kind: 'status', status: rest, ...(error ? { code: error.code, message: error.message } : {}) });
                if (status.state === 'closed')
                    this.#end(status);
                else
                    this.#events.status(status);
            },
        });
        for (const want of this.#wants.values())
            this.#led.subscribe(this.#tab, { ...want }, 0);
        this.#tell({ kind: 'leader', term });
    }
    #follow() {
        const led = this.#led;
        this.#led = undefined;
        led?.close();
    }
    #sayWants(leader) {
        this.#era += 1;
        for (const want of this.#wants.values())
            this.#tell({ kind: 'subscribe', want, era: this.#era }, leader);
    }
    #said(id, said) {
        const want = this.#wants.get(id);
        if (!want)
            return;
        advance(want, said);
        if (said.type === 'error')
            this.#wants.delete(id);
        this.#events.said(id, said);
    }
    #hear(message) {
        const { from, to } = message;
        if (to !== undefined && to !== this.#tab)
            return;
        switch (message.kind) {
            case 'hello':
                if (this.#led) {
                    this.#tell({ kind: 'leader', term: this.#term }, from);
                    this.#tell({ kind: 'status', status: this.#led.status }, from);
                }
                break;
            case 'leader':
                if (!this.#election?.heard(from, message.term) || from === this.#leader)
                    return;
                this.#leader = from;
                this.#sayWants(from);
                break;
            case 'said':
                if (from === this.#leader && message.era === this.#era)
                    this.#said(message.id, message.said);
                break;
            case 'status': {
                if (from !== this.#leader)
                    return;
                const { status, code } = message;
                if (status.state === 'closed') {
                    // Its tab alone has closed it, where nothing is wrong: another leads.
                    if (code !== undefined)
                        this.#end({ ...status, error: new StreamError(code, message.message ?? code) });
                }
                else
                    this.#events.status(status);
                break;
            }
            case 'bye':
                this.#led?.drop(from);
                if (from === this.#leader) {
                    this.#leader = undefined;
                    this.#events.status({ state: 'connecting' });
                    this.#election?.left();
                }
                break;
            case 'subscribe':
                this.#led?.subscribe(from, message.want, message.era);
                break;
            case 'unsubscribe':
                this.#led?.unsubscribe(from, message.id);
                break;
            case 'wake':
                this.#led?.wake();
                break;
            case 'here':
                if (this.#led && !this.#led.hears(from))
                    this.#tell({ kind: 'again' }, from);
                break;
            case 'again':
                if (from === this.#leader)
                    this.#sayWants(from);
        }
    }
}
/** What the leader has: the connection, and for whom each of its subscriptions is. */
class Led {
    status = { state: 'idle' };
    #source;
    #tabs = new Map();
    #of = new Map();
    #name;
    #stop;
    #lastId = 0;
    #isClosed = false;
    constructor(name, connect, events) {
        this.#name = name;
        this.#source = connect({
            said: (number, said) => {
                const of = this.#of.get(number);
                if (!of)
                    return;
                if (said.type === 'error')
                    this.#forget(of.tab, of.id);
                events.said(of.tab, of.id, of.era, said);
            },
            status: (status) => {
                this.status = status;
                if (!this.#isClosed)
                    events.status(status);
            },
        });
        this.#stop = webLocks() ? () => undefined : every(HERE_MS, () => this.#dropSilent());
    }
    hears(tab) {
        const found = this.#tabs.get(tab);
        if (found)
            found.heardAt = Date.now();
        return found !== undefined;
    }
    subscribe(tab, want, era) {
        if (!this.hears(tab))
            this.#tabs.set(tab, { ids: new Map(), heardAt: Date.now(), stop: this.#whenGone(tab) });
        // Said anew: from the cursor that the tab has come to, whatever it was sent since.
        this.unsubscribe(tab, want.id);
        const number = ++this.#lastId;
        this.#tabs.get(tab)?.ids.set(want.id, number);
        this.#of.set(number, { tab, id: want.id, era });
        this.#source.subscribe({ ...want, id: number });
    }
    unsubscribe(tab, id) {
        const number = this.#forget(tab, id);
        if (number !== undefined)
            this.#source.unsubscribe(number);
    }
    drop(tab) {
        const found = this.#tabs.get(tab);
        if (!found)
            return;
        for (const id of [...found.ids.keys()])
            this.unsubscribe(tab, id);
        found.stop();
        this.#tabs.delete(tab);
    }
    wake() {
        this.#source.wake();
    }
    close() {
        this.#isClosed = true;
        this.#stop();
        for (const { stop } of this.#tabs.values())
            stop();
        this.#source.close();
    }
    #forget(tab, id) {
        const ids = this.#tabs.get(tab)?.ids;
        const number = ids?.get(id);
        ids?.delete(id);
        if (number !== undefined)
            this.#of.delete(number);
        return number;
    }
    /** The tab's own lock is free when it is gone, however it went. */
    #whenGone(tab) {
        const locks = webLocks();
        if (!locks)
            return () => undefined;
        let release = () => undefined;
        release = hold(locks, `${this.#name} tab ${tab}`, () => {
            this.drop(tab);
            release();
        });
        return () => release();
    }
    #dropSilent() {
        for (const [tab, { heardAt }] of [...this.#tabs]) {
            if (Date.now() - heardAt > GONE_MS)
                this.drop(tab);
        }
    }
}
function every(ms, act) {
    let stop = () => undefined;
    const again = () => {
        stop = later(ms, () => {
            act();
            again();
        });
    };
    again();
    return () => stop();
}
