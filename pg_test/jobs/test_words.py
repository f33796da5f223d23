"""Words by which a handler says how its attempt ends: job_snooze, job_discard, job_retry_in."""

import psycopg
import pytest

from stage.batches import enqueue as enqueue_many


def declare(db, body: str, kind: str = "FUNCTION", options: str = "retry_delay => '1 hour', max_attempts => 3", answers: str = "void") -> None:
    """Queue `q`; its handler runs `body`, having left an effect."""
    returns = f"RETURNS {answers}" if kind == "FUNCTION" else ""
    db.sql(f"""
        CREATE TABLE effects (job bigint, attempt int);
        CREATE {kind} work(job pushy.job) {returns} LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO public.effects VALUES (job.id, job.attempt);
            {body}
        END $$;
        SELECT pushy.queue_register('q', 'work(pushy.job)', {options})""")


def enqueue(db, args: str = "{}") -> int:
    return db.value("SELECT pushy.enqueue('q', %s::jsonb)", args)


def effects(db, job: int) -> list[int]:
    return [attempt for attempt, in db.rows("SELECT attempt FROM effects WHERE job = %s ORDER BY attempt", job)]


KINDS = ["FUNCTION", "PROCEDURE"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_snoozed_job_keeps_its_effects_waits_and_is_not_charged(db, kind):
    declare(db, "PERFORM pushy.job_snooze('1 hour', reason => 'not yet');", kind)
    job = enqueue(db)
    db.wait_until("SELECT state FROM pushy.jobs WHERE id = %s", "scheduled", params=(job,))
    assert effects(db, job) == [1]
    assert db.row("SELECT attempt, run_at - now() BETWEEN '59 minutes' AND '61 minutes' AS later, started_at, last_error"
                  " FROM pushy.jobs WHERE id = %s", job) == {"attempt": 0, "later": True, "started_at": None, "last_error": None}
    assert db.rows("SELECT attempt, level, message FROM pushy.job_logs WHERE job_id = %s", job) == [(1, "info", "not yet")]
    # A commit is counted when others see it already.
    db.wait_until("SELECT snoozed FROM pushy.stats WHERE queue = 'q'", 1)
    assert db.row("SELECT snoozed, failed, completed, given_back FROM pushy.stats WHERE queue = 'q'") == {
        "snoozed": 1, "failed": 0, "completed": 0, "given_back": 0}


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_that_snoozes_until_a_time_that_has_come_runs_again_at_once(db, kind):
    declare(db, "IF (SELECT count(*) FROM public.effects) < 4 THEN PERFORM pushy.job_snooze(until => now()); END IF;", kind)
    job = enqueue(db)
    done = db.job_wait(job)
    assert (done["state"], done["attempt"]) == ("completed", 1)
    assert effects(db, job) == [1, 1, 1, 1]
    assert db.value("SELECT snoozed FROM pushy.stats WHERE queue = 'q'") == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_that_snoozes_without_end_lets_others_run_and_can_be_cancelled(make_cluster, kind):
    db = make_cluster({"pushy.max_executors": 1}).database()
    declare(db, "IF job.args = '{}' THEN PERFORM pushy.job_snooze('0'); END IF;", kind)
    db.sql("CREATE FUNCTION fine() RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('other', 'fine()')")
    endless = enqueue(db)
    db.wait_until("SELECT snoozed > 10 FROM pushy.stats WHERE queue = 'q'")
    for _ in range(5):
        assert db.job_wait(db.value("SELECT pushy.enqueue('other')"))["state"] == "completed"
        # Of its own queue too: it comes behind those that are ready.
        assert db.job_wait(enqueue(db, "1"))["state"] == "completed"
    # The attempt that runs is shown, and none was charged.
    assert db.row("SELECT attempt <= 1 AS is_uncharged, state IN ('available', 'running') AS goes_on FROM pushy.jobs WHERE id = %s", endless) == {
        "is_uncharged": True, "goes_on": True}
    assert db.value("SELECT count(*) FROM pushy.failures") == 0
    db.sql("SELECT pushy.job_cancel(%s)", endless)
    assert db.job_wait(endless)["state"] == "cancelled"


@pytest.mark.parametrize("kind", KINDS)
def test_a_discarded_job_has_no_attempt_left_and_its_effects_are_undone(db, kind):
    declare(db, "PERFORM pushy.job_discard('no such customer'); INSERT INTO public.effects VALUES (job.id, 99);", kind)
    job = enqueue(db)
    done = db.job_wait(job)
    assert (done["state"], done["attempt"], done["last_error"]) == ("discarded", 1, "no such customer")
    assert effects(db, job) == []
    assert db.rows("SELECT attempt, sqlstate, message, context ~ 'work' FROM pushy.failures WHERE job_id = %s", job) == [
        (1, "P0001", "no such customer", True)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_that_says_when_to_be_retried_is_charged_and_comes_then(db, kind):
    declare(db, "IF job.attempt = 1 THEN PERFORM pushy.job_retry_in('20 ms', 'rate limit'); END IF;", kind)
    job = enqueue(db)
    done = db.job_wait(job)
    assert (done["state"], done["attempt"], done["last_error"]) == ("completed", 2, "rate limit")
    assert effects(db, job) == [2]


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_attempt_ends_the_job_whatever_it_says_of_another(db, kind):
    declare(db, "PERFORM pushy.job_retry_in('0');", kind, "max_attempts => 2")
    done = db.job_wait(enqueue(db))
    assert (done["state"], done["attempt"]) == ("discarded", 2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_procedure_keeps_what_it_has_committed_before_it_discards(db, kind):
    declare(db, ("COMMIT;" if kind == "PROCEDURE" else "") + "PERFORM pushy.job_discard();", kind)
    job = enqueue(db)
    assert db.job_wait(job)["last_error"] == "the handler has discarded the job"
    assert effects(db, job) == ([1] if kind == "PROCEDURE" else [])


# -- deep inside, caught, said twice -----------------------------------------------------------------------------

# What a handler does after a word, and what comes of it.
COMPOSED = {
    "a word two functions deep": ("PERFORM outer_word('discard');", "discarded", "said deep"),
    "a caught discard": ("BEGIN PERFORM outer_word('discard'); EXCEPTION WHEN OTHERS THEN END;", "discarded", "said deep"),
    "a caught retry": ("BEGIN PERFORM outer_word('retry'); EXCEPTION WHEN OTHERS THEN END;", "retryable", "said deep"),
    "a discard that became a snooze": ("BEGIN PERFORM outer_word('discard'); EXCEPTION WHEN OTHERS THEN END; PERFORM outer_word('snooze');",
                                       "scheduled", None),
    "a snooze that became a discard": ("PERFORM outer_word('snooze'); PERFORM outer_word('discard');", "discarded", "said deep"),
    "a snooze and an error": ("PERFORM outer_word('snooze'); RAISE 'an error';", "retryable", "an error"),
    "a discard and another error": ("BEGIN PERFORM outer_word('discard'); EXCEPTION WHEN OTHERS THEN RAISE 'an error'; END;",
                                    "discarded", "said deep"),
    "a snooze in a part that was undone": (
        "BEGIN PERFORM outer_word('snooze'); RAISE 'undone'; EXCEPTION WHEN raise_exception THEN END;", "scheduled", None),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", COMPOSED)
def test_words_compose(db, case, kind):
    body, state, error = COMPOSED[case]
    db.sql("""
        CREATE FUNCTION word(which text) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            CASE which
                WHEN 'discard' THEN PERFORM pushy.job_discard('said deep');
                WHEN 'retry' THEN PERFORM pushy.job_retry_in('1 hour', 'said deep');
                WHEN 'snooze' THEN PERFORM pushy.job_snooze('1 hour', reason => 'said deep');
            END CASE;
        END $$;
        CREATE FUNCTION outer_word(which text) RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM public.word(which); END$$""")
    declare(db, body, kind)
    job = enqueue(db)
    db.wait_until("SELECT state FROM pushy.jobs WHERE id = %s", state, params=(job,))
    assert db.value("SELECT last_error FROM pushy.jobs WHERE id = %s", job) == error
    assert effects(db, job) == ([1] if error is None else [])


def test_words_of_one_job_of_a_batch_are_not_anothers(db):
    declare(db, """
        CASE (job.args->>'n')::int % 4
            WHEN 0 THEN PERFORM pushy.job_snooze('1 hour');
            WHEN 1 THEN PERFORM pushy.job_discard();
            WHEN 2 THEN PERFORM pushy.job_retry_in('1 hour');
            ELSE NULL;
        END CASE;""", options="concurrency => 1")
    enqueue_many(db, 200)
    counts = {"scheduled": 50, "discarded": 50, "retryable": 50, "completed": 50}
    db.wait_until("SELECT jsonb_object_agg(state, n) FROM (SELECT state, count(*) n FROM pushy.jobs GROUP BY state) _", counts)
    assert db.value("SELECT count(*) FROM effects") == 100
    assert set(db.rows("SELECT DISTINCT (args->>'n')::int % 4, state::text FROM pushy.jobs")) == {
        (0, "scheduled"), (1, "discarded"), (2, "retryable"), (3, "completed")}


@pytest.mark.parametrize("call", ["job_snooze('1 s')", "job_discard()", "job_retry_in('1 s')", "job_checkpoint('{}')", "job_log('x')"])
def test_outside_of_a_handler_there_is_nothing_to_say(db, call):
    with pytest.raises(psycopg.Error, match="can only be called by a running job") as refused:
        db.sql(f"SELECT pushy.{call}")
    assert refused.value.sqlstate == "55000" and refused.value.diag.message_hint.startswith("Call it from a queue's handler")


def test_a_deferred_trigger_is_no_handler_any_more(db):
    """Its job has returned, and is charged for the error."""
    db.sql("""
        CREATE TABLE late (n int);
        CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pushy.job_snooze('1 hour'); RETURN NULL; END$$;
        CREATE CONSTRAINT TRIGGER late AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late()""")
    declare(db, "INSERT INTO public.late VALUES (1);", options="max_attempts => 1")
    done = db.job_wait(enqueue(db))
    assert done["state"] == "discarded" and "can only be called by a running job" in done["last_error"]


@pytest.mark.parametrize("call, message", [
    ("job_snooze()", 'argument "delay" must not be null'),
    ("job_snooze('-1 s')", 'invalid value for "delay"'),
    ("job_snooze('1 s', now())", "delay and until are both given"),
    ("job_snooze(until => 'infinity')", 'invalid value for "until": infinity'),
    ("job_snooze(until => '-infinity')", 'invalid value for "until": -infinity'),
    ("job_retry_in(NULL)", 'argument "delay" must not be null'),
    ("job_retry_in('-1 s')", 'invalid value for "delay"'),
    ("job_checkpoint(NULL)", 'argument "state" must not be null'),
    ("job_checkpoint(to_jsonb(repeat('x', 2000000)))", "is too long"),
    ("job_log(NULL)", 'argument "message" must not be null'),
    ("job_log('x', 'loud')", 'invalid value for "level": "loud"'),
    ("job_log('x', job_id => 1)", 'argument "token" must not be null'),
    ("job_log('x', token => gen_random_uuid())", 'argument "job_id" must not be null'),
])
def test_a_word_that_cannot_be_is_an_error_that_says_so(db, call, message):
    declare(db, f"PERFORM pushy.{call};", options="max_attempts => 1")
    done = db.job_wait(enqueue(db))
    assert done["state"] == "discarded" and message in done["last_error"]


def test_queue_run_hears_words_as_an_executor_does(db):
    declare(db, """
        PERFORM pushy.job_log('seen');
        CASE job.args->>'word'
            WHEN 'snooze' THEN PERFORM pushy.job_snooze('1 hour');
            WHEN 'discard' THEN PERFORM pushy.job_discard();
            WHEN 'retry' THEN PERFORM pushy.job_retry_in('1 hour');
            ELSE NULL;
        END CASE;""")
    db.sql("SELECT pushy.queue_pause('q')")
    jobs = {word: enqueue(db, f'{{"word": "{word}"}}') for word in ("snooze", "discard", "retry", "none")}
    assert db.value("SELECT pushy.queue_run('q')") == 4
    states = dict(db.rows("SELECT id, state::text FROM pushy.jobs"))
    assert {word: states[job] for word, job in jobs.items()} == {
        "snooze": "scheduled", "discard": "discarded", "retry": "retryable", "none": "completed"}
    assert db.value("SELECT count(*) FROM pushy.job_logs WHERE message = 'seen'") == 4
    assert sorted(job for job, in db.rows("SELECT job FROM effects")) == sorted([jobs["snooze"], jobs["none"]])


def test_a_function_that_snoozes_finds_its_checkpoint(db):
    declare(db, """
        PERFORM pushy.job_checkpoint(to_jsonb(coalesce(job.checkpoint::int, 0) + 1));
        ASSERT (pushy.current_job()).checkpoint::int = coalesce(job.checkpoint::int, 0) + 1, 'the newest';
        IF job.checkpoint IS NULL OR job.checkpoint::int < 2 THEN
            PERFORM pushy.job_snooze('0');
        ELSE
            ASSERT (pushy.current_job()).checkpoint = '3';
        END IF;""")
    job = enqueue(db)
    done = db.job_wait(job)
    assert done["state"] == "completed" and effects(db, job) == [1, 1, 1], done["last_error"]
    assert db.value("SELECT count(*) FROM pushy_internal.checkpoint") == 0


def test_a_snoozed_job_can_be_cancelled_and_retried(db):
    declare(db, "IF (SELECT count(*) FROM public.effects) < 2 THEN PERFORM pushy.job_snooze('1 hour'); END IF;")
    first, second = enqueue(db), enqueue(db)
    db.wait_until("SELECT count(*) FROM pushy.jobs WHERE state = 'scheduled'", lambda n: n >= 1)
    db.jobs_wait("q")
    waiting = db.value("SELECT min(id) FROM pushy.jobs WHERE state = 'scheduled'")
    assert waiting in (first, second)
    assert db.value("SELECT pushy.job_retry(%s)", waiting) is True
    assert db.job_wait(waiting)["state"] == "completed"


@pytest.mark.parametrize("by", ["executor", "queue_run", "trigger"])
@pytest.mark.parametrize("keep", ["1 day", "0"])
def test_a_function_that_is_done_leaves_no_checkpoint(db, keep, by):
    """It has said how far it is, and then it was through: who has it run again begins anew."""
    db.sql("""
        CREATE TABLE late (n int);
        CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pushy.job_checkpoint('"late"'); RETURN NULL; END$$;
        CREATE CONSTRAINT TRIGGER late AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late()""")
    says = "INSERT INTO public.late VALUES (1);" if by == "trigger" else "PERFORM pushy.job_checkpoint('1');"
    declare(db, f"ASSERT job.checkpoint IS NULL; {says}", options=f"keep_completed => '{keep}', max_attempts => 1")
    if by == "queue_run":
        db.sql("SELECT pushy.queue_pause('q')")
    jobs = [enqueue(db) for _ in range(3)]
    if by == "queue_run":
        assert db.value("SELECT pushy.queue_run('q')") == 3
    else:
        db.jobs_wait("q")
    assert db.value("SELECT count(*) FROM effects") == 3
    assert db.value("SELECT count(*) FROM pushy_internal.checkpoint") == 0
    if keep != "0":
        assert db.rows("SELECT DISTINCT state, checkpoint FROM pushy.jobs") == [("completed", None)]
        if by == "executor":
            assert db.value("SELECT pushy.job_retry(%s)", jobs[0]) is True
            assert db.job_wait(jobs[0])["state"] == "completed" and effects(db, jobs[0]) == [1, 2]


def test_a_function_that_fails_keeps_the_checkpoint_of_before(db):
    declare(db, """
        IF job.checkpoint IS NULL THEN
            PERFORM pushy.job_checkpoint('"first"');
            PERFORM pushy.job_snooze('0');
        ELSE
            PERFORM pushy.job_checkpoint('"second"');
            RAISE EXCEPTION 'at %', job.checkpoint;
        END IF;""", options="max_attempts => 1")
    done = db.job_wait(enqueue(db))
    assert (done["state"], done["last_error"]) == ("discarded", 'at "first"')
    assert db.rows("SELECT state FROM pushy_internal.checkpoint") == [("first",)]
