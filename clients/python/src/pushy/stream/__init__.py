"""What is published on channels of Pushy, by its gateway: in the order of its cursors, whatever happens to the network.

    with Stream("https://push.example.com", "orders", topics=["order/42"], token=fetch_token, after=cursor) as stream:
        for heard in stream:
            match heard:
                case Notice(payload=payload):
                    ...
                case Resync():
                    ...                     # something is missing: look at the tables anew

It needs httpx: `pip install 'pushy-worker[stream]'`.
"""

from .course import Asked, State, StreamError
from .events import Notice, Resync
from .reader import AsyncStream, Stream

__all__ = ["Asked", "AsyncStream", "Notice", "Resync", "State", "Stream", "StreamError"]
