"""The demo of the farm, played: three workers, one killed, nothing lost. It ends with an error where the account is not right."""

import re
import sys

from harness.installation import REPOSITORY

sys.path.append(str(REPOSITORY / "tools"))
from demo import Demo  # noqa: E402
import demo_farm  # noqa: E402


def test_a_worker_that_is_killed_loses_nothing_and_the_account_says_so(db, capsys):
    demo_farm.play(Demo(db.cluster, db), print)
    said = capsys.readouterr().out
    assert re.search(r"^ +600 \| +600 \| +600 \| +0$", said, re.M), said
    assert "was over before it said how the job ended" in said and "no worker outside has asked for jobs since the server started" in said, said
