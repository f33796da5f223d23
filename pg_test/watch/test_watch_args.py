"""What the jobs of a watch get, for every declaration: what its notices say, unless it says something else."""

import itertools
import json

import pytest

from stage.watching import Watching, jobs, paused_queue, watch

PAYLOADS = {"key": {}, "none": {"payload": "none"}, "row": {"payload": "row"}, "diff": {"payload": "diff"},
            "statement": {"level": "statement"}, "statement, none": {"level": "statement", "payload": "none"},
            "text": {"payload_expr": "'p' || NEW.id"}, "jsonb": {"payload_expr": "jsonb_build_object('x', NEW.a)"}}
ARGS = {"unsaid": {}, "args_expr": {"args_expr": "jsonb_build_object('said', NEW.id)"}}


@pytest.mark.parametrize("payload, args", [(p, a) for p, a in itertools.product(PAYLOADS, ARGS) if not (p.startswith("statement") and a == "args_expr")])
def test_arguments_are_the_payload_or_what_args_expr_says(db, payload, args):
    paused_queue(db)
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a int)")
    heard = Watching(db, "heard")
    said = []
    db.main.add_notice_handler(lambda notice: said.append(notice.message_hint))
    options = PAYLOADS[payload] | ARGS[args]
    watch(db, "t", queue="q", **options)
    db.sql("INSERT INTO t VALUES (1, 5)")
    [notice] = [notice.payload for notice in heard.until_now()]
    [got] = jobs(db)
    is_other = "payload_expr" in options and args == "unsaid"
    assert [hint for hint in said if "args_expr" in str(hint)] == (["Pass args_expr to say what they get."] if is_other else [])
    if args == "args_expr":
        assert got == {"said": 1}
    elif is_other:
        assert (got["op"], got["key"]) == ("insert", {"id": 1}), "the JSON of key"
    else:
        assert got == (json.loads(notice) if notice else {})


@pytest.mark.parametrize("args", ARGS)
def test_of_a_payload_expr_that_fails_both_have_the_error_and_the_key(db, args):
    paused_queue(db)
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a int)")
    heard = Watching(db, "heard")
    watch(db, "t", queue="q", payload_expr="(1 / NEW.a)::text", **ARGS[args])
    db.sql("INSERT INTO t VALUES (1, 0)")
    [notice] = heard.payloads()
    [got] = jobs(db)
    assert got == notice and notice["key"] == {"id": 1} and notice["error"]["sqlstate"] == "22012"
