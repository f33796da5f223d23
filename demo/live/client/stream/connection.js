/** A connection that comes back: with pauses that double, another token where one is needed, by Server-Sent Events where no WebSocket comes
 * through, and each subscription from its own cursor. */
import { Backoff } from '../backoff.js';
import { fetchAuthority, SignedOut } from './authority.js';
import { next } from './closing.js';
import { later } from './link.js';
import { advance, StreamError } from './messages.js';
import { SseLink } from './sse.js';
import { WebSocketLink } from './websocket.js';
/** A connection that was good for so long starts its pauses anew. */
const GOOD_MS = 10_000;
/** Without a subscription it stays so long, because the next page or component may have one. */
const LINGER_MS = 1_000;
/** A token that was good for so long was another one. */
const RENEWAL_MS = 1_000;
/** After so long by Server-Sent Events a WebSocket is tried again. */
const TRUST_MS = 600_000;
/** Nobody is let in with what is refused so often. */
const REFUSALS = 5;
/** Errors after which the same is worth another try, as if the connection was closed with that code. */
const PASSING = { unavailable: 4301, too_fast: 4300, unauthenticated: 4100 };
const LATER_MS = 2_000;
export class Connection {
    #options;
    #events;
    #held = new Map();
    #backoff;
    #link;
    /** What belongs to an attempt before the present one does nothing. */
    #attempt = 0;
    #state = 'idle';
    #stopTimer = () => undefined;
    #stopLinger = () => undefined;
    #stopRenewal = () => undefined;
    #hasOpened = false;
    #openedAt = 0;
    /** Attempts by WebSocket that were not let in, one after the other. */
    #inVain = 0;
    #worksBySse = false;
    #hasWorkedByWebSocket = false;
    #refusals = 0;
    constructor(options, events) {
        this.#options = options;
        this.#events = events;
        this.#backoff = new Backoff(options.firstPauseMs, options.mostPauseMs);
    }
    subscribe(want) {
        if (this.#state === 'closed')
            return;
        this.#stopLinger();
        this.#held.set(want.id, { want, isLive: false });
        if (this.#state === 'idle')
            this.#connect();
        else {
            this.#link?.subscribe(want);
            this.#tell();
        }
    }
    unsubscribe(id) {
        if (!this.#held.delete(id))
            return;
        this.#link?.unsubscribe(id);
        if (this.#held.size > 0)
            return this.#tell();
        this.#stopLinger();
        this.#stopLinger = later(LINGER_MS, () => this.#rest());
    }
    wake() {
        if (this.#state === 'waiting')
            this.#connect();
        else
            this.#link?.check();
    }
    close() {
        this.#end(undefined);
    }
    #end(error) {
        if (this.#state === 'closed')
            return;
        this.#leave();
        this.#stopLinger();
        this.#held.clear();
        this.#set({ state: 'closed', ...(error ? { error } : {}) });
    }
    #rest() {
        if (this.#held.size > 0 || this.#state === 'closed')
            return;
        this.#leave();
        this.#set({ state: 'idle' });
    }
    /** The link, the pause, the attempt: whatever there is. */
    #leave() {
        this.#attempt += 1;
        this.#stopTimer();
        this.#stopRenewal();
        this.#link?.close();
        this.#link = undefined;
    }
    #set(status) {
        this.#state = status.state;
        const transport = this.#link?.transport;
        this.#events.status(transport ? { transport, ...status } : status);
    }
    /** Says the state that follows from the subscriptions. */
    #tell() {
        if (!this.#hasOpened || !this.#link)
            return;
        const state = [...this.#held.values()].every(({ isLive }) => isLive) ? 'live' : 'resyncing';
        if (state !== this.#state)
            this.#set({ state });
    }
    #connect() {
        this.#leave();
        this.#hasOpened = false;
        const attempt = this.#attempt;
        for (const held of this.#held.values())
            held.isLive = false;
        this.#set({ state: 'connecting' });
        this.#open(attempt).catch((error) => {
            if (attempt !== this.#attempt)
                return;
            if (error instanceof SignedOut)
                this.#end(new StreamError('unauthenticated', 'nobody is signed in'));
            else
                this.#lost({ reason: error instanceof Error ? error.message : String(error) });
        });
    }
    #authority(wants) {
        const { kind, fetchAuthority: fetch } = this.#options;
        return fetchAuthority(kind, fetch, wants, this.#refusals > 0);
    }
    #wants() {
        return [...this.#held.values()].map(({ want }) => want);
    }
    async #open(attempt) {
        const { WebSocket, url, fetch } = this.#options;
        const isBySse = this.#isNextBySse();
        const wants = this.#wants();
        // By SSE a ticket is for one of them.
        const authority = await this.#authority(isBySse ? wants.slice(0, 1) : wants);
        if (attempt !== this.#attempt)
            return;
        const events = this.#linkEvents(attempt);
        const link = isBySse || !WebSocket
            ? new SseLink(fetch, url, authority, (want) => this.#authority([want]), events)
            : new WebSocketLink(WebSocket, url, authority, events);
        this.#link = link;
        // Those that came while it was waited for, too.
        for (const { want } of this.#held.values())
            link.subscribe(want);
    }
    /** After two attempts in vain by WebSocket every other is by SSE, until one of them works. Where WebSockets did come through it is more likely that
     * nothing does. */
    #isNextBySse() {
        const { transport, WebSocket } = this.#options;
        if (transport !== 'auto')
            return transport === 'sse';
        if (!WebSocket || this.#worksBySse)
            return true;
        return this.#inVain >= (this.#hasWorkedByWebSocket ? 8 : 2) && this.#inVain % 2 === 0;
    }
    #linkEvents(attempt) {
        const mine = (act) => (...args) => {
            if (attempt === this.#attempt)
                act(...args);
        };
        return {
            opened: mine(() => this.#opened()),
            said: mine((ids, said) => this.#said(ids, said)),
            position: mine((cursor) => this.#said([...this.#held.keys()], { type: 'position', cursor })),
            expiring: mine(() => void this.#renew(attempt, new Backoff(1_000))),
            renewalRefused: mine((code) => {
                if (!this.#hasOpened)
                    return;
                // Another subject's, for example: another connection is let in with it, or is not.
                if (!(code in PASSING) || code === 'unauthenticated')
                    return this.#lost({ code: 4100, reason: code });
                this.#stopRenewal();
                this.#stopRenewal = later(LATER_MS, () => void this.#renew(attempt, new Backoff(LATER_MS)));
            }),
            lost: mine((lost) => this.#lost(lost)),
        };
    }
    #opened() {
        if (this.#hasOpened)
            return;
        this.#hasOpened = true;
        this.#openedAt = Date.now();
        this.#inVain = 0;
        this.#refusals = 0;
        this.#worksBySse = this.#link?.transport === 'sse';
        this.#hasWorkedByWebSocket ||= !this.#worksBySse;
        this.#set({ state: 'resyncing' });
        this.#tell();
    }
    #said(ids, said) {
        const passing = said.type === 'error' ? PASSING[said.code] : undefined;
        if (said.type === 'error' && passing)
            return this.#lost({ code: passing, reason: said.message });
        for (const id of ids) {
            const held = this.#held.get(id);
            if (!held)
                continue;
            advance(held.want, said);
            if (said.type === 'error')
                this.unsubscribe(id);
            this.#events.said(id, said);
            if (said.type === 'live')
                held.isLive = true;
            if (said.type === 'subscribed')
                held.isLive = said.live;
            if (said.type === 'live' || said.type === 'subscribed')
                this.#tell();
        }
    }
    async #renew(attempt, backoff) {
        try {
            const authority = await this.#authority(this.#wants());
            if (attempt === this.#attempt)
                this.#link?.renew(authority);
        }
        catch (error) {
            if (attempt !== this.#attempt)
                return;
            if (error instanceof SignedOut)
                return this.#end(new StreamError('unauthenticated', 'nobody is signed in'));
            // As long as the connection lasts; when it ends another one asks anew.
            this.#stopRenewal = later(backoff.nextMs(), () => void this.#renew(attempt, backoff));
        }
    }
    #lost(lost) {
        const wasOpen = this.#hasOpened;
        const wasBySse = this.#link?.transport === 'sse';
        const whatNext = next(lost);
        this.#leave();
        this.#hasOpened = false;
        const openMs = wasOpen ? Date.now() - this.#openedAt : 0;
        if (openMs >= GOOD_MS)
            this.#backoff.reset();
        if (openMs >= TRUST_MS)
            this.#worksBySse = false;
        if (!wasOpen && lost.code !== 401 && lost.code !== 4100) {
            this.#inVain += 1;
            if (wasBySse)
                this.#worksBySse = false;
        }
        if (whatNext === 'stop')
            return this.#end(new StreamError(lost.reason, `the gateway closed the connection: ${lost.reason}`));
        if (whatNext === 'renew' && !wasOpen) {
            this.#refusals += 1;
            if (this.#refusals >= REFUSALS)
                return this.#end(new StreamError('unauthenticated', `refused ${REFUSALS} times: ${lost.reason}`));
        }
        for (const [id, held] of this.#held) {
            held.isLive = false;
            this.#events.said(id, { type: 'away' });
        }
        if (this.#held.size === 0)
            return this.#set({ state: 'idle' });
        const pause = Math.max(this.#backoff.nextMs(), lost.retryMs ?? 0, whatNext === 'later' ? LATER_MS * (1 + Math.random()) : 0);
        // A renewal is no failure, and at once; but for one that is due again and again, because the token is always the same.
        const wait = whatNext === 'renew' && openMs >= RENEWAL_MS && lost.retryMs === 0 ? 0 : pause;
        this.#set({ state: 'waiting', reason: lost.reason, retryAt: Date.now() + wait });
        this.#stopTimer = later(wait, () => this.#connect(), true);
    }
}
