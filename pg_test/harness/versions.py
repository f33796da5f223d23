"""What differs between versions of PostgreSQL."""

import pytest

from harness.database import Database


def skip_unless_workers_must_log_in(db: Database) -> None:
    """From 17 on a background worker may run as a role that cannot log in (BGWORKER_BYPASS_ROLELOGINCHECK)."""
    if db.main.info.server_version >= 170000:
        pytest.skip("from 17 on workers may run as a role that cannot log in")
