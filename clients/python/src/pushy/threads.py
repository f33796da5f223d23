"""Threads for sync handlers."""

import queue
import threading
from collections.abc import Callable


class Threads:
    """At most `most` threads, started as they are needed.

    Daemons, unlike those of concurrent.futures, because a handler that does not end must not keep the program from ending.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._started = 0
        self._busy = 0
        self._lock = threading.Lock()

    def submit(self, task: Callable[[], None]) -> None:
        """The task must not raise."""
        with self._lock:
            self._busy += 1
            if self._busy > self._started and self._started < self._most:
                self._started += 1
                threading.Thread(target=self._work, name=f"{self._name}-{self._started}", daemon=True).start()
        self._tasks.put(task)

    def close(self) -> None:
        for _ in range(self._started):
            self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
            with self._lock:
                self._busy -= 1
            del task
