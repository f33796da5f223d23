"""A client program that is told what to do line by line, and answers so."""

import os
import queue
import signal
import subprocess
import tempfile
import threading

DEADLINE = 180


class Program:
    """Its own process group, ended with it."""

    def __init__(self, command: list, environment: dict[str, str]):
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen([str(part) for part in command], env=os.environ | environment, text=True, bufsize=1,
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, start_new_session=True)
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def line(self, timeout: float = DEADLINE) -> str:
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            raise RuntimeError(f"{self._process.args} said nothing for {timeout} s\n{self.errors()}") from None
        if line is None:
            raise RuntimeError(f"{self._process.args} ended\n{self.errors()}")
        return line

    def expect(self, word: str, timeout: float = DEADLINE) -> None:
        """Reads on until `word`."""
        while self.line(timeout) != word:
            pass

    def after(self, start: str) -> str:
        """Reads on until a line that starts so, and answers the rest of it."""
        while not (line := self.line()).startswith(start):
            pass
        return line.removeprefix(start)

    def rest(self) -> list[str]:
        """What it says until its end."""
        return list(iter(lambda: self._lines.get(timeout=DEADLINE), None))

    def tell(self, word: str) -> None:
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read()[-3000:]

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *exception) -> None:
        try:
            self._process.stdin.close()
            self._process.wait(timeout=0.1 if exception[0] else 15)
        except (subprocess.TimeoutExpired, OSError):
            pass
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        self._errors.close()
