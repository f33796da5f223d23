"""What differs between versions of PostgreSQL."""

import re

import psycopg
import pytest

from harness.cluster import Cluster
from harness.database import Database
from harness.installation import chosen_pg_config

WORKERS_MAY_BE_NOLOGIN = TRANSACTION_TIMEOUT = 17
MEMBERSHIPS_HAVE_OPTIONS = 16
VIRTUAL_COLUMNS = LOADED_MODULES = 18
# An extension's library is looked for along dynamic_library_path: a path that leaves $libdir out takes plpgsql away from everybody.
LIBRARIES_ON_A_PATH = 18


def major(db: Database) -> int:
    return db.main.info.server_version // 10000


def skip_unless_workers_must_log_in(db: Database) -> None:
    """From 17 on a background worker may run as a role that cannot log in (BGWORKER_BYPASS_ROLELOGINCHECK)."""
    if major(db) >= WORKERS_MAY_BE_NOLOGIN:
        pytest.skip("from 17 on workers may run as a role that cannot log in")


def skip_before(db: Database, version: int) -> None:
    """What PostgreSQL has only from `version` on."""
    if major(db) < version:
        pytest.skip(f"PostgreSQL has it from {version} on")


def notify_segment_digits(cluster: Cluster) -> int:
    """The length of the names of NOTIFY's files."""
    with cluster.connect() as session:
        return 15 if session.info.server_version >= 170000 else 4


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    return (yield from _without_contrib())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    return (yield from _without_contrib())


def _without_contrib():
    """16 is tested from a wheel that has neither contrib nor PL/Python: what needs them is skipped there, and only there."""
    try:
        return (yield)
    except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile) as error:
        message = error.diag.message_primary or ""
        if "/pgserver/" in chosen_pg_config() and re.fullmatch(r'extension "\w+" is not available|could not access file "test_decoding".*', message):
            pytest.skip(f"the wheel of 16 lacks it: {message}")
        raise
