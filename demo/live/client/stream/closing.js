/** Why a connection ended, and what is done next. */
/** The hundreds of a code of closing say it; what no protocol of ours has said is the network's. */
export function next(lost) {
    const { code = 0 } = lost;
    if (code === 401 || (code >= 4100 && code < 4200))
        return 'renew';
    if (code === 429 || code === 503 || (code >= 4300 && code < 4400))
        return 'later';
    if (code >= 4200 && code < 4300)
        return 'stop';
    return 'come back';
}
