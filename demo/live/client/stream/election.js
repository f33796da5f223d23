/** Which of the tabs leads: who holds a lock of the browser's, which frees it when the tab ends, however it ends; where there are no Web Locks
 * (a page that came without TLS, for example), who says so every second. */
import { later } from './link.js';
export function webLocks() {
    return globalThis.navigator?.locks;
}
/** Holds a lock of that name, when it is free, until what this answers is called. `refused`: where the page may have none. */
export function hold(locks, name, held, refused = () => undefined) {
    const abort = new AbortController();
    let release = () => abort.abort();
    locks
        .request(name, { signal: abort.signal }, () => {
        const released = new Promise((resolve) => (release = resolve));
        held();
        return released;
    })
        .catch(() => {
        if (!abort.signal.aborted)
            refused();
    });
    return () => release();
}
export class ByLock {
    #release;
    constructor(locks, name, lead) {
        this.#release = hold(locks, name, () => lead(0));
    }
    heard() {
        return true;
    }
    left() {
        // The lock comes by itself.
    }
    stop() {
        this.#release();
    }
}
const BEAT_MS = 1_000;
/** Timers of a tab that nobody looks at may be late by a second. */
const MISSED_MS = 3_500;
export class ByClaim {
    #tab;
    #events;
    #term = 0;
    #leads = false;
    #stopTimer = () => undefined;
    constructor(tab, events) {
        this.#tab = tab;
        this.#events = events;
        // Who leads answers sooner.
        this.#claimIn(200 + 200 * Math.random());
    }
    heard(tab, term) {
        if (this.#leads) {
            const isMine = term < this.#term || (term === this.#term && tab > this.#tab);
            if (isMine) {
                this.#events.beat(this.#term);
                return false;
            }
            this.#leads = false;
            this.#events.follow();
        }
        else if (term < this.#term)
            return false;
        this.#term = term;
        this.#claimIn(MISSED_MS + 1_000 * Math.random());
        return true;
    }
    left() {
        if (!this.#leads)
            this.#claimIn(100 * Math.random());
    }
    stop() {
        this.#stopTimer();
    }
    #claimIn(ms) {
        this.#stopTimer();
        this.#stopTimer = later(ms, () => {
            this.#leads = true;
            this.#term += 1;
            this.#events.lead(this.#term);
            this.#beat();
        });
    }
    #beat() {
        this.#stopTimer();
        this.#stopTimer = later(BEAT_MS, () => {
            this.#events.beat(this.#term);
            this.#beat();
        });
    }
}
