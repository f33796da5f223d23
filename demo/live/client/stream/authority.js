/** As whom the stream hears: functions of the program's, asked before each connection and before what they gave ends. */
/** A function that does not answer is as one that fails. */
const PATIENCE_MS = 30_000;
export class SignedOut extends Error {
}
export async function fetchAuthority(kind, fetch, wants, wasRefused) {
    const all = [...wants];
    const asked = {
        channels: [...new Set(all.map(({ channel }) => channel))],
        topics: [...new Set(all.flatMap(({ topics }) => topics))],
        wasRefused,
    };
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`no ${kind} in ${PATIENCE_MS / 1000} s`)), PATIENCE_MS);
    });
    try {
        const text = await Promise.race([(async () => await fetch(asked))(), late]);
        if (text === null)
            throw new SignedOut(`no ${kind}`);
        return { kind, text };
    }
    finally {
        clearTimeout(timer);
    }
}
