"""One line that lives; plain lines when nobody watches."""

import sys


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)


def check(fine: bool, complaint: str) -> None:
    if not fine:
        sys.exit(f"bench: {complaint}")
