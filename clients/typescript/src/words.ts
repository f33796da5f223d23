/** What ends an attempt from within a handler, however deep in its calls. */

/** Thrown by the words of a job (snooze, discard, retryIn): let it through, although the word counts where it is swallowed, too. */
export class AttemptEnded extends Error {
  override name = 'AttemptEnded'
}

/** The reason of `job.signal`: the worker stops, or the job is no longer its own. */
export class Cancelled extends AttemptEnded {
  override name = 'Cancelled'
}

/** Thrown by job.complete: the lease was over, or somebody cancelled the job. Let the transaction roll back. */
export class LeaseLost extends Cancelled {
  override name = 'LeaseLost'
}
