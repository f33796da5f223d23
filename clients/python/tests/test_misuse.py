"""What a program says wrongly is refused where it says so."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import pushy


def handle(job: pushy.Job) -> None:
    pass


def generator(job: pushy.Job) -> Any:
    yield 1


async def async_generator(job: pushy.Job, more: int = 1) -> Any:
    yield 1


class Yielding:
    def __call__(self, job: pushy.Job) -> Any:
        yield 1


class Callee:
    def __call__(self, job: pushy.Job, more: int = 1) -> None:
        pass


@pytest.mark.parametrize(
    ("register", "says"),
    [
        (lambda worker: worker.handler(handle), "@worker.handler('mails')"),
        (lambda worker: worker.handler(""), "@worker.handler('mails')"),
        (lambda worker: worker.handler("q")(3), "not 3"),
        (lambda worker: worker.handler("q")(lambda: None), "called with the job"),
        (lambda worker: worker.handler("q")(lambda job, more: None), "called with the job"),
        (lambda worker: worker.handler("q")(generator), "does not yield"),
        (lambda worker: worker.handler("q")(async_generator), "does not yield"),
        (lambda worker: worker.handler("q")(partial(async_generator, more=2)), "does not yield"),
        (lambda worker: worker.handler("q")(Yielding()), "does not yield"),
        (lambda worker: worker.handler("q", concurrency="4"), "not '4' and 0"),
        (lambda worker: worker.handler("q", concurrency=2.5), "not 2.5 and 0"),
        (lambda worker: worker.handler("q", prefetch="4"), "not 10 and '4'"),
        (lambda worker: worker.handler("q", lease="30 s"), "not '30 s'"),
        (lambda worker: pushy.Worker(grace="10"), "not '10'"),
    ],
)
def test_what_is_no_handler_or_no_number_is_refused(register: Callable[[pushy.Worker], Any], says: str) -> None:
    with pytest.raises(TypeError) as refused:
        register(pushy.Worker())
    assert says in str(refused.value)


@pytest.mark.parametrize("handler", [handle, Callee(), partial(handle), lambda *jobs: None, lambda job, more=1: None, print])
def test_whatever_can_be_called_with_a_job_is_a_handler(handler: Callable[[pushy.Job], Any]) -> None:
    assert pushy.Worker().handler("q")(handler) is handler


def test_who_runs_a_worker_inside_a_loop_is_told_what_to_await() -> None:
    worker = pushy.Worker()
    worker.handler("q")(handle)

    async def main() -> None:
        worker.run()

    with pytest.raises(RuntimeError, match=r"await worker\.run_async\(\)"):
        asyncio.run(main())
