"""Claims that wait for somebody's transaction: what was true before the wait is asked again after it, and no time is taken before."""


import psycopg
import pytest

from stage.leases import claim, enqueue, state
from stage.waiting_call import WaitingCall


@pytest.fixture
def mails(db):
    db.sql("SELECT pushy.queue_register('mails', retry_delay => '0', max_attempts => 3)")
    db.sql("CREATE FUNCTION send(jsonb) RETURNS void LANGUAGE sql AS ''")
    return db


CLAIM = "SELECT job_id, token, lease_until > clock_timestamp() + interval '5 s' FROM pushy.job_claim('mails', 1, '6 s', %s)"


@pytest.mark.parametrize("waits_for", ["a call of the same name", "a claim of a limited queue", "who holds the job"])
def test_a_lease_is_counted_from_the_end_of_the_wait(mails, waits_for):
    """The first one keeps the others waiting for longer than they ask to have the job."""
    limited = waits_for == "a claim of a limited queue"
    if limited:
        mails.sql("SELECT pushy.queue_alter('mails', concurrency => 2)")
    enqueue(mails, 2)
    with mails.connect(autocommit=False) as first:
        if waits_for == "who holds the job":
            [(job, _)] = claim(mails, worker="w")
            first.execute("SELECT pushy.job_cancel(%s)", [job])
        else:
            first.execute("SELECT pushy.job_claim('mails', worker => %s)", [None if limited else "w"])
        waiting = WaitingCall(mails, CLAIM, None if limited else "w")
        first.execute("SELECT pg_sleep(1.5)")
        first.rollback() if waits_for == "who holds the job" else first.commit()
    [(_, _, has_all)] = waiting.ended()
    assert has_all


@pytest.mark.parametrize("other_role", [False, True])
@pytest.mark.parametrize("limit", [None, 1])
def test_a_queue_that_is_paused_gives_nothing_to_who_waited(mails, role, limit, other_role):
    worker = role() if other_role else "postgres"
    mails.sql(f"SELECT pushy.queue_alter('mails', concurrency => 1), pushy.queue_grant('mails', '{worker}', 'claim')")
    enqueue(mails, 2)
    with mails.connect(autocommit=False) as first:
        first.execute("SELECT pushy.job_claim('mails')")
        waiting = WaitingCall(mails, CLAIM, None, user=worker)
        mails.sql("SELECT pushy.queue_pause('mails')")
        if limit is None:
            mails.sql("SELECT pushy.queue_alter('mails', concurrency => 0)")
        first.rollback()
    assert waiting.ended() == []
    assert mails.value("SELECT count(*) FROM pushy.leases") == 0


def test_who_has_lost_his_privilege_while_he_waited_gets_nothing(mails, role):
    worker = role()
    mails.sql(f"SELECT pushy.queue_alter('mails', concurrency => 1), pushy.queue_grant('mails', '{worker}', 'claim')")
    enqueue(mails, 2)
    with mails.connect(autocommit=False) as first:
        first.execute("SELECT pushy.job_claim('mails')")
        waiting = WaitingCall(mails, CLAIM, None, user=worker)
        mails.sql(f"SELECT pushy.queue_revoke('mails', '{worker}', 'claim')")
        first.rollback()
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        waiting.ended()


def test_who_has_lost_his_privilege_while_his_outcome_waited_changes_nothing(mails, role):
    worker = role()
    mails.sql(f"SELECT pushy.queue_grant('mails', '{worker}', 'claim')")
    [job] = enqueue(mails)
    [(_, token)] = mails.connect(worker).execute("SELECT job_id, token FROM pushy.job_claim('mails')").fetchall()
    with mails.connect(autocommit=False) as other:
        other.execute("SELECT pushy.job_cancel(%s)", [job])
        waiting = WaitingCall(mails, "SELECT pushy.job_complete(%s, %s)", job, token, user=worker)
        mails.sql(f"SELECT pushy.queue_revoke('mails', '{worker}', 'claim')")
        other.rollback()
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        waiting.ended()
    assert state(mails, job) == "running"


def test_a_queue_that_was_renamed_or_dropped_meanwhile(mails):
    mails.sql("SELECT pushy.queue_alter('mails', concurrency => 1)")
    jobs = enqueue(mails, 2)
    with mails.connect(autocommit=False) as first:
        first.execute("SELECT pushy.job_claim('mails')")
        waiting = WaitingCall(mails, "SELECT job_id, queue FROM pushy.job_claim('mails')")
        mails.sql("SELECT pushy.queue_rename('mails', 'letters'), pushy.queue_register('mails')")
        first.rollback()
    assert waiting.ended() == [(jobs[0], "letters")]
    mails.sql("SELECT pushy.queue_drop('letters', force => true)")
    mails.sql("SELECT pushy.queue_alter('mails', concurrency => 1)")
    enqueue(mails, 2)
    with mails.connect(autocommit=False) as first:
        first.execute("SELECT pushy.job_claim('mails')")
        waiting = WaitingCall(mails, CLAIM, None)
        first.rollback()
        with mails.connect(autocommit=False) as second:
            waiting.ended()
            second.execute("SELECT pushy.queue_drop('mails', force => true)")
            gone = mails.connect(autocommit=False)
            gone.execute("SELECT 1")
            second.commit()
    with pytest.raises(psycopg.errors.UndefinedObject):
        gone.execute("SELECT pushy.job_claim('mails')")


@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize("limit", [0, 1])
@pytest.mark.parametrize("give", ["SELECT pushy.queue_alter('mails', handler => 'send(jsonb)')", "SELECT pushy.queue_register('mails', 'send(jsonb)')"])
def test_a_handler_is_given_once_no_claim_is_under_way(mails, commits, limit, give):
    """What a claim that has not ended has leased nobody sees: the handler waits for it."""
    mails.sql("SELECT pushy.queue_alter('mails', concurrency => %s)", limit)
    jobs = enqueue(mails, 2)
    mails.sql("SELECT pushy.queue_pause('mails')")
    mails.sql("SELECT pushy.queue_resume('mails')")
    with mails.connect(autocommit=False) as first:
        assert first.execute("SELECT job_id FROM pushy.job_claim('mails')").fetchall() == [(jobs[0],)]
        mails.sql("SELECT pushy.queue_pause('mails')")
        assert mails.value("SELECT count(*) FROM pushy.leases") == 0
        giving = WaitingCall(mails, give)
        late = WaitingCall(mails, CLAIM, None)
        first.commit() if commits else first.rollback()
    if commits:
        with pytest.raises(psycopg.errors.ObjectInUse, match="1 job of it is leased"):
            giving.ended()
        assert late.ended() == []
    else:
        giving.ended()
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="has a handler"):
            late.ended()


def test_who_gives_a_handler_keeps_claims_waiting_until_it_is_known_whether_it_is_given(mails):
    [job] = enqueue(mails)
    with mails.connect(autocommit=False) as owner:
        owner.execute("SELECT pushy.queue_register('mails', 'send(jsonb)')")
        waiting = WaitingCall(mails, CLAIM, None)
        owner.rollback()
    assert [found for found, *_ in waiting.ended()] == [job]


@pytest.mark.parametrize("before, after, expected", [(1, 3, 2), (3, 1, 0), (1, 0, 2), (0, 1, 0)])
def test_a_concurrency_that_was_changed_meanwhile_counts(mails, before, after, expected):
    mails.sql("SELECT pushy.queue_alter('mails', concurrency => %s)", before)
    enqueue(mails, 4)
    with mails.connect(autocommit=False) as first:
        first.execute("SELECT pushy.job_claim('mails')")
        if before == 0:
            # It does not wait until there is a limit.
            mails.sql("SELECT pushy.queue_alter('mails', concurrency => %s)", after)
        waiting = WaitingCall(mails, "SELECT job_id FROM pushy.job_claim('mails', 2)")
        if before != 0:
            mails.sql("SELECT pushy.queue_alter('mails', concurrency => %s)", after)
        first.commit()
    assert len(waiting.ended()) == expected
    assert mails.value("SELECT count(*) FROM pushy.leases") == 1 + expected


# -- whose job it is ---------------------------------------------------------------------------------------------

def test_a_worker_s_name_is_his_role_s_own(mails, role):
    """Who knows another role's name for a worker gets none of its jobs, and does not keep it waiting."""
    ann, eve = role(), role()
    for worker in (ann, eve):
        mails.sql(f"SELECT pushy.queue_grant('mails', '{worker}', 'claim')")
    jobs = enqueue(mails, 2)
    query = "SELECT job_id, token FROM pushy.job_claim('mails', 5, worker => 'mailer-1')"
    one = "SELECT job_id, token FROM pushy.job_claim('mails', 1, worker => 'mailer-1')"
    with mails.connect(ann) as of_ann, mails.connect(eve, autocommit=False) as of_eve:
        [(job, token)] = of_ann.execute(one).fetchall()
        assert [found for found, _ in of_eve.execute(query).fetchall()] == [jobs[1]]
        [(again, other)] = of_ann.execute(query).fetchall()
        of_eve.commit()
        assert again == job == jobs[0] and other != token
        assert of_ann.execute("SELECT pushy.job_complete(%s, %s)", (job, other)).fetchone() == (True,)


def test_what_is_said_again_is_bounded_in_bytes_and_the_rest_is_not_lost(mails):
    """Three claims of one name hold more arguments than one claim hands out."""
    half = "'{\"text\": \"' || repeat('x', 9000000) || '\"}'"
    jobs = [mails.value(f"SELECT pushy.enqueue('mails', ({half})::jsonb)") for _ in range(3)]
    for job in jobs:
        # Leased before under other names, as three calls would.
        [(found, _)] = claim(mails, worker=f"w{job}")
        assert found == job
    mails.sql("UPDATE pushy_internal.lease SET worker = 'w'")
    held = dict(claim(mails, 5, worker="w"))
    assert sorted(held) == jobs[:2]
    for job, token in held.items():
        assert mails.value("SELECT pushy.job_complete(%s, %s)", job, token) is True
    assert [job for job, _ in claim(mails, 5, worker="w")] == jobs[2:]


@pytest.mark.parametrize("text, reads", [
    ("{0}", True), ("{0:upper}", True), ("{{{0}}}", True), ("{0:short}", True), ("{0:fours}", True),
    ("{0}-", False), ("-{0}", False), ("{{{0}", False), ("{0}}}", False), ("{0:twos}", False), ("{0:double}", False), ("{0:less}", False), (" {0}", False), ("{0:wide}", False),
])
def test_tokens_are_read_as_the_server_reads_them(mails, text, reads):
    class Token:
        def __init__(self, token):
            self.whole, self.digits = str(token), token.hex

        def __format__(self, how: str) -> str:
            every = lambda n: "-".join(self.digits[at:at + n] for at in range(0, 32, n))  # noqa: E731
            return {"": self.whole, "upper": self.whole.upper(), "short": self.digits, "fours": every(4), "twos": every(2),
                    "double": self.whole.replace("-", "--"), "less": self.whole[:-1], "wide": "é" + self.whole[1:]}[how]

    [job] = enqueue(mails)
    [(_, token)] = claim(mails)
    said = text.format(Token(token))
    try:
        mails.value("SELECT %s::uuid", said)
        assert reads, "the server does"
    except psycopg.errors.InvalidTextRepresentation:
        assert not reads, "the server does not"
    outcome = "SELECT pushy.jobs_settle(jsonb_build_array(jsonb_build_object('job_id', %s::bigint, 'token', %s::text, 'outcome', 'complete')))"
    if reads:
        assert mails.value(outcome, job, said) == 1
    else:
        with pytest.raises(psycopg.Error, match="a uuid"):
            mails.value(outcome, job, said)
