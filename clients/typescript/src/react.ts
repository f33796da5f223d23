/**
 * A hook of React's for a stream.
 *
 * ```tsx
 * const { state, resyncs } = useSubscription(stream, 'orders', { topics: [`order/${id}`], after, onNotice: (notice) => ... })
 * ```
 */
import { useEffect, useRef, useState, useSyncExternalStore } from 'react'
import type { Heard, State, Status, Stream, StreamError, SubscribeOptions } from './stream/index.js'

export interface Subscribed {
  /** Of the stream. */
  readonly state: State
  /** How often something was missing: as a dependency of the query of the page's data it has that read anew. */
  readonly resyncs: number
  /** Why it was refused. */
  readonly error: StreamError | undefined
}

/** The state of a stream, such as a page shows it. */
export function useStreamStatus(stream: Stream): Status {
  return useSyncExternalStore(
    (changed) => stream.watch(changed),
    () => stream.status,
    () => stream.status,
  )
}

/**
 * Subscribes as long as the component is there, and anew when channel or topics are others; functions are called as they were given last. When it
 * comes back (React's strict mode, another topic) it goes on from `after`, or from now on.
 */
export function useSubscription(stream: Stream, channel: string, options: SubscribeOptions = {}): Subscribed {
  const { topics = [], after, latest = false, presence = false } = options
  const latestOptions = useRef(options)
  useEffect(() => {
    latestOptions.current = options
  })
  const [resyncs, setResyncs] = useState(0)
  const [error, setError] = useState<StreamError | undefined>(undefined)
  const { state } = useStreamStatus(stream)
  const topicsKey = JSON.stringify(topics)
  useEffect(() => {
    setError(undefined)
    const subscription = stream.subscribe(channel, {
      topics: JSON.parse(topicsKey) as string[],
      latest,
      presence,
      ...(after === undefined ? {} : { after }),
      onNotice: (notice) => latestOptions.current.onNotice?.(notice),
      onPresence: (said) => latestOptions.current.onPresence?.(said),
      onResync: (resync) => {
        setResyncs((before) => before + 1)
        latestOptions.current.onResync?.(resync)
      },
      onError: (refused) => {
        setError(refused)
        latestOptions.current.onError?.(refused)
      },
    })
    return () => subscription.close()
  }, [stream, channel, topicsKey, after, latest, presence])
  return { state, resyncs, error }
}

export type { Heard }
