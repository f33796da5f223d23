import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

pytest_plugins = ["harness.fixtures", "harness.versions"]

# A bit of everything that a major could do otherwise: CI runs it on each, and the whole on one.
SMOKE = {"test_enqueue", "test_handlers", "test_life_server", "test_majors", "test_pg_upgrade", "test_regress", "test_relay_listen",
         "test_settings", "test_subscription_read", "test_watch_payload"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem in SMOKE:
            item.add_marker(pytest.mark.smoke)
