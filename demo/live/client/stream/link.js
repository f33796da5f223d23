/** One connection to the gateway, of either kind. */
/** Until the gateway has answered. */
export const OPEN_MS = 10_000;
/** A browser shows no pings of the protocol: after so much silence a message asks, and so soon it is answered. */
export const SILENCE_MS = 30_000;
export const ANSWER_MS = 10_000;
/** What stops it is answered. The timer keeps no program of Node's running, unless that `holds`. */
export function later(ms, act, holds = false) {
    const timer = setTimeout(act, ms);
    if (!holds && typeof timer === 'object')
        timer.unref?.();
    return () => clearTimeout(timer);
}
