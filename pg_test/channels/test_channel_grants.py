"""Who reads a channel: open ones everybody, granted ones their grantees, and nobody what was said before they were let in."""

import json

import psycopg
import pytest

from harness.refusal import refused
from stage.watching import Watching


@pytest.fixture
def two(db, role):
    """The owner of channel `secret`, which it has granted to itself alone so far, and two others."""
    db.owner, db.friend, db.stranger = role(), role(), role()
    return db


def call(db, user, statement, *params):
    with db.connect(user=user) as session:
        return session.execute(statement, params or None).fetchone()[0]


def denied(db, user, statement, *params):
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as error:
        call(db, user, statement, *params)
    return f"{error.value.diag.message_primary} / {error.value.diag.message_detail} / {error.value.diag.message_hint}"


def grant(db, role, channel="secret", by=None):
    call(db, by or db.owner, "SELECT pushy.channel_grant(%s, %s)", channel, role)


def tell(db, *payloads, channel="secret"):
    """Tells, and waits until readers could have it."""
    for payload in payloads:
        db.sql("SELECT pushy.notify(%s, %s, delivery => 'relay')", channel, payload)
    db.wait_until("SELECT pending FROM pushy.log", 0)
    fence = f"fence {payloads}"
    db.value("SELECT pushy.subscription_create('fence')")
    db.sql("SELECT pushy.notify('fence', %s, delivery => 'relay')", fence)
    db.wait_until("SELECT count(*) FROM pushy.subscription_read('fence', 1000) WHERE channel = 'fence' AND payload = %s", 1, params=(fence,))


def read(db, user, name="s"):
    with db.connect(user=user) as session:
        return [payload for channel, payload in session.execute("SELECT channel, payload FROM pushy.subscription_read(%s)", (name,)) if channel == "secret"]


def create(db, user, channels="{secret}", name="s", **options):
    named = "".join(f", {option} => {value}" for option, value in options.items())
    return call(db, user, f"SELECT pushy.subscription_create(%s, %s{named})", name, channels)


def test_a_channel_that_nobody_was_granted_is_open(two):
    create(two, two.stranger)
    tell(two, "a")
    assert read(two, two.stranger) == ["a"]
    assert two.rows("SELECT * FROM pushy.channel_grants") == []


def test_a_granted_channel_is_read_by_its_owner_its_grantees_and_superusers_only(two):
    grant(two, two.friend)
    said = denied(two, two.stranger, "SELECT pushy.subscription_create('s', '{other, secret}')")
    assert 'permission denied for channel "secret"' in said and f"SELECT pushy.channel_grant('secret', '{two.stranger}')" in said
    create(two, two.stranger, None, "all")
    for user in (two.owner, two.friend, "postgres"):
        create(two, user, name=user)
    tell(two, "a")
    for user in (two.owner, two.friend, "postgres"):
        assert read(two, user, user) == ["a"], user
    assert read(two, two.stranger, "all") == []
    assert call(two, two.stranger, "SELECT count(*) FROM pushy.subscription_read('all') WHERE channel = 'fence'") > 0
    # LISTEN knows no privileges.
    with two.connect(user=two.stranger) as session:
        session.execute("LISTEN secret")


@pytest.mark.parametrize("to", ["friend", "public"])
def test_nobody_reads_what_was_said_before_they_were_let_in(two, to):
    grant(two, two.owner)
    create(two, two.friend, None, "all", from_oldest="true")
    tell(two, "before")
    grant(two, two.friend if to == "friend" else "public")
    # With every way to look back.
    create(two, two.friend, from_oldest="true")
    tell(two, "after")
    assert read(two, two.friend) == ["after"] and read(two, two.friend, "all") == ["after"]
    assert two.rows("SELECT channel, payload FROM pushy.subscription_read('s', after => '0-0-0') WHERE channel = 'secret'") == [("secret", "after")], \
        "the rights of the subscription's owner count, whoever reads it"
    # Granted again nothing more is seen, and nothing less; who is let in now sees only what comes.
    grant(two, two.friend)
    assert read(two, two.friend) == ["after"]
    for granted in {two.friend, "public" if to == "public" else two.friend}:
        call(two, two.owner, "SELECT pushy.channel_revoke('secret', %s)", granted)
    tell(two, "between")
    grant(two, two.friend)
    tell(two, "again")
    assert read(two, two.friend) == ["again"] and read(two, two.friend, "all") == ["again"]


def test_a_role_made_today_hears_nothing_of_last_night(two, role):
    grant(two, two.owner)
    tell(two, "last night")
    new = role(f"IN ROLE {two.stranger}")
    create(two, new, None, from_oldest="true")
    assert read(two, new) == []


def test_revocation_is_felt_by_a_subscription_that_reads_on(two):
    grant(two, two.friend)
    create(two, two.friend)
    create(two, two.friend, None, "all")
    tell(two, "a", "b")
    with two.connect(user=two.friend) as session:
        one = "SELECT payload FROM pushy.subscription_read('s', 1)"
        assert session.execute(one).fetchone() == ("a",)
        # Its snapshot is of before, in the second session.
        with two.connect(user=two.friend, autocommit=False) as old:
            old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            old.execute("SELECT 1")
            call(two, two.owner, "SELECT pushy.channel_revoke('secret', %s)", two.friend)
            for reader in (session, old):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    reader.execute(one)
        assert session.execute("SELECT count(*) FROM pushy.subscription_read('all') WHERE channel = 'secret'").fetchone() == (0,)


def test_a_wait_that_lasts_feels_a_grant_and_a_revocation(two):
    grant(two, two.owner)
    create(two, two.friend, None, "all")
    ack = "SELECT pushy.subscription_ack('all', cursor) FROM pushy.subscription_read('all', 1000)"
    call(two, "postgres", "SELECT 1")
    with two.connect(user=two.friend) as session:
        session.execute(ack)
        assert session.execute("CALL pushy.subscription_wait('all', '0')").fetchone() == (False,)
        grant(two, two.friend)
        two.sql("SELECT pushy.notify('secret', 'x', delivery => 'relay')")
        assert session.execute("CALL pushy.subscription_wait('all', '60 s')").fetchone() == (True,)


def test_a_queue_that_subscribes_is_fed_what_its_subscriber_may_hear(two):
    two.sql("CREATE FUNCTION h(jsonb) RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', 'h(jsonb)'), pushy.queue_pause('q'), pushy.queue_grant('q', 'public', 'enqueue')")
    grant(two, two.friend)
    create(two, two.friend, "{secret}", "named", queue="'q'")
    tell(two, "a")
    two.wait_until("SELECT count(*) FROM pushy.jobs", 1)
    call(two, two.owner, "SELECT pushy.channel_revoke('secret', %s)", two.friend)
    tell(two, "b")
    two.wait_until("SELECT stopped FROM pushy.subscriptions WHERE name = 'named'", 'permission denied for channel "secret"')
    grant(two, two.friend)
    tell(two, "c")
    # Between them a job that says that something is missing.
    two.wait_until("SELECT array_agg(args->>'payload' ORDER BY id) FROM pushy.jobs", ["a", None, "c"])
    assert two.value("SELECT count(*) FROM pushy.jobs WHERE args = '{\"resync\": true}'") == 1


def test_who_grants_first_owns_the_channel_and_only_that_role_grants(two):
    grant(two, two.friend)
    for statement in ("SELECT pushy.channel_grant('secret', 'public')", f"SELECT pushy.channel_revoke('secret', '{two.friend}')"):
        said = denied(two, two.stranger, statement)
        assert 'must be owner of channel "secret"' in said and two.owner in said
    # A member of the owner, and a superuser, act for it.
    two.sql(f"GRANT {two.owner} TO {two.stranger}")
    grant(two, two.stranger, by=two.stranger)
    two.sql(f"REVOKE {two.owner} FROM {two.stranger}")
    two.sql("SELECT pushy.channel_revoke('secret', %s)", two.stranger)
    assert two.rows("SELECT channel, grantee::text, privilege, topics, owner::text FROM pushy.channel_grants") == [
        ("secret", two.friend, "listen", None, two.owner)]


@pytest.mark.parametrize("how", ["watch", "subscription"])
def test_a_stranger_does_not_close_a_channel_that_others_use(two, how):
    with two.connect(user=two.owner) as session:
        if how == "watch":
            two.sql("GRANT CREATE ON SCHEMA public TO PUBLIC")
            session.execute("CREATE TABLE t (i int PRIMARY KEY)")
            session.execute("SELECT pushy.watch('t', channel => 'secret')")
        else:
            create(two, two.owner)
    said = denied(two, two.stranger, "SELECT pushy.channel_grant('secret', current_user::text)")
    assert "not yours to grant" in said and two.owner in said
    grant(two, two.friend)
    assert denied(two, two.stranger, "SELECT pushy.channel_grant('secret', current_user::text)")


def test_without_grants_a_channel_is_closed_and_a_grant_to_public_opens_it(two):
    grant(two, two.friend)
    notices = []
    with two.connect(user=two.owner) as session:
        session.add_notice_handler(lambda diagnostic: notices.append(f"{diagnostic.message_primary} / {diagnostic.message_hint}"))
        session.execute("SELECT pushy.channel_revoke('secret', %s)", (two.friend,))
    assert notices == ["channel \"secret\" is read by its owner only now / To open it to all: SELECT pushy.channel_grant('secret', 'public')."]
    denied(two, two.friend, "SELECT pushy.subscription_create('s', '{secret}')")
    assert two.rows("SELECT channel, grantee, owner::text FROM pushy.channel_grants") == [("secret", None, two.owner)]
    grant(two, "public")
    create(two, two.stranger)
    tell(two, "a")
    assert read(two, two.stranger) == ["a"]


def test_channels_are_written_as_after_listen(two):
    grant(two, two.friend, "NewUser")
    assert call(two, two.friend, "SELECT channel FROM pushy.channel_grants") == "newuser"
    denied(two, two.stranger, "SELECT pushy.subscription_create('s', '{NEWUSER}')")
    create(two, two.stranger, '{"\\"NewUser\\""}')


@pytest.mark.parametrize("call_, sqlstate, says", [
    ("channel_grant('c', 'nobody_here')", "42704", 'role "nobody_here" does not exist'),
    ("channel_grant('c', 'postgres', 'read')", "22023", "'listen'"),
    ("channel_grant('c', NULL)", "22004", '"role"'),
    ("channel_grant(NULL, 'public')", "22004", '"channel"'),
    ("channel_grant('a b', 'public')", "42601", "invalid channel identifier"),
    ("channel_revoke('c', 'public')", "42704", "granted to nobody"),
    ("channel_revoke('c', 'public', 'read')", "22023", "'listen'"),
    *[(f"channel_grant('c', 'public', topics => '{topics}')", "22023", "topics") for topics in ("", "post*", "**/a", "{role}", "a,,b", "a\nb")],
])
def test_bad_grants_are_refused(two, call_, sqlstate, says):
    with pytest.raises(psycopg.Error) as error:
        two.sql(f"SELECT pushy.{call_}")
    assert error.value.sqlstate == sqlstate
    assert says in f"{error.value.diag.message_primary} {error.value.diag.message_hint}"
    assert two.value("SELECT count(*) FROM pushy_internal.channel") == 0


@pytest.mark.parametrize("fate", ["dropped", "renamed", "made again by another"])
def test_roles_that_go_leave_no_way_in(two, shared_cluster, fate):
    names = (two.owner, two.friend)
    grant(two, two.friend)
    for name in names:
        two.sql(f"ALTER ROLE {name} RENAME TO {name}_new" if fate == "renamed" else f"DROP OWNED BY {name}; DROP ROLE {name}")
        if fate == "made again by another":
            two.sql(f"CREATE ROLE {name} LOGIN")
    try:
        if fate == "renamed":
            create(two, f"{two.friend}_new")
            assert two.rows("SELECT grantee::text, owner::text FROM pushy.channel_grants") == [(f"{two.friend}_new", f"{two.owner}_new")]
            grant(two, two.stranger, by=f"{two.owner}_new")
            return
        if fate == "made again by another":
            for name in names:
                denied(two, name, "SELECT pushy.subscription_create('s', '{secret}')")
                denied(two, name, "SELECT pushy.channel_grant('secret', 'public')")
                assert call(two, name, "SELECT count(*) FROM pushy.channel_grants") == 0
        # It stays closed, and a superuser has it.
        denied(two, two.stranger, "SELECT pushy.subscription_create('s', '{secret}')")
        two.sql("SELECT pushy.channel_grant('secret', %s)", two.stranger)
        assert two.value("SELECT DISTINCT owner::text FROM pushy.channel_grants") == "postgres"
        create(two, two.stranger)
    finally:
        two.close()
        if fate == "renamed":
            with two.cluster.connect() as admin:
                for name in names:
                    admin.execute(f"ALTER ROLE {name}_new RENAME TO {name}")


# -- notice(id) ---------------------------------------------------------------------------------------------------

@pytest.fixture
def big(two):
    """A table whose rows are too long for NOTIFY, watched on channel `secret`."""
    two.sql("CREATE TABLE t (i int PRIMARY KEY, v text)")
    two.sql("SELECT pushy.watch('t', channel => 'secret', payload => 'row')")
    return two


def reference(db, i):
    listener = Watching(db, "secret")
    db.sql("INSERT INTO t VALUES (%s, repeat('x', 9000))", i)
    return json.loads(listener.until_now()[0].payload)["notice"]


def test_the_number_of_a_notice_cannot_be_guessed(big):
    numbers = [reference(big, i) for i in range(8)]
    assert len(set(numbers)) == 8
    assert all(isinstance(number, int) and 0 < number < 2**53 for number in numbers), "JavaScript keeps each"
    # Not in order, not close to each other, and in all of the range.
    gaps = [abs(a - b) for a, b in zip(sorted(numbers), sorted(numbers)[1:])]
    assert sorted(numbers) != numbers and min(gaps) > 2**20 and max(numbers) > 2**48
    for number in numbers:
        assert json.loads(call(big, big.stranger, "SELECT pushy.notice(%s)", number))["op"] == "insert"
        with pytest.raises(psycopg.errors.UndefinedObject):
            call(big, big.stranger, "SELECT pushy.notice(%s)", number + 1)


def test_a_notice_of_a_granted_channel_is_for_who_had_the_grant_when_it_was_written(big):
    before = reference(big, 1)
    big.sql("SELECT pushy.channel_grant('secret', %s)", big.friend)
    after = reference(big, 2)
    assert json.loads(call(big, big.friend, "SELECT pushy.notice(%s)", after))["op"] == "insert"
    with pytest.raises(psycopg.errors.UndefinedObject):
        call(big, big.friend, "SELECT pushy.notice(%s)", before)
    for number in (before, after):
        assert 'channel "secret"' in denied(big, big.stranger, "SELECT pushy.notice(%s)", number)
        big.value("SELECT pushy.notice(%s)", number)


# -- a restore ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("elsewhere", [False, True], ids=["same cluster", "another cluster"])
def test_a_restored_channel_stays_closed_until_its_grants_are_found_by_name(make_cluster, elsewhere):
    from stage.dumps import dump, restore
    db = make_cluster().database("shop")
    db.sql("CREATE ROLE keeper LOGIN; CREATE ROLE friend LOGIN; CREATE ROLE stranger LOGIN")
    with db.connect(user="keeper") as session:
        session.execute("SELECT pushy.channel_grant('secret', 'friend'), pushy.channel_grant('open', 'public')")
    there = make_cluster(fresh=True) if elsewhere else db.cluster
    if elsewhere:
        with there.connect() as admin:
            admin.execute("CREATE ROLE zero LOGIN; CREATE ROLE stranger LOGIN; CREATE ROLE keeper LOGIN; CREATE ROLE friend LOGIN")
    copy, _ = restore(there, dump(db), "copy")
    create(copy, "stranger", "{open}")
    for user in ("friend", "stranger"):
        denied(copy, user, "SELECT pushy.subscription_create('x', '{secret}')")
    assert copy.rows("SELECT name, resumed, reason FROM pushy.resume_after_restore() WHERE kind = 'channel'") == [
        ("open", True, None), ("secret", True, None)]
    create(copy, "friend", name="f")
    denied(copy, "stranger", "SELECT pushy.subscription_create('x', '{secret}')")
    tell(copy, "a")
    assert read(copy, "friend", "f") == ["a"]
    with copy.connect(user="keeper") as session:
        session.execute("SELECT pushy.channel_grant('secret', 'stranger')")


# -- Pushy's own channels, and channels that others have closed -----------------------------------------------------------

OURS = ("pushy_control", "Pushy_Control", '"pushy_control"', "pushy_", '"pushy_ Else"')
TAKEN = ("channel_grant({}, 'public')", "channel_grant({}, current_user::text)", "notify({}, 'x')", "notify({}, 'x', delivery => 'relay')",
         "watch('t', channel => {})", "watch('t', channel => {}, delivery => 'notify')")


@pytest.mark.parametrize("user", ["stranger", "postgres"])
def test_nobody_owns_a_channel_of_pushys_or_tells_on_it_and_everybody_hears_it(two, user):
    """Whoever was first closed pushy_control to all others, and anybody told there what Pushy had not done."""
    two.sql("CREATE TABLE t (i int PRIMARY KEY); GRANT TRIGGER ON t TO PUBLIC; CREATE TABLE pushy_t (i int PRIMARY KEY); GRANT TRIGGER ON pushy_t TO PUBLIC")
    with two.connect(user=getattr(two, user, user)) as session:
        for channel in OURS:
            for call_ in TAKEN:
                statement = "SELECT pushy." + call_.format("'" + channel + "'")
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="is Pushy's own"):
                    session.execute(statement)
            session.execute("SELECT pushy.subscription_create('s', ARRAY[%s])", (channel,))
            session.execute(f"LISTEN {channel}")
        # A table's own name, and once more after it was renamed.
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="is Pushy's own"):
            session.execute("SELECT pushy.watch('pushy_t')")
        session.execute("SELECT pushy.watch('t')")
        two.sql("DROP TABLE pushy_t; ALTER TABLE t RENAME TO pushy_t")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="is Pushy's own"):
            session.execute("SELECT pushy.watch('pushy_t')")
        session.execute("""SELECT pushy.watch('pushy_t', channel => 't'), pushy.notify('"Pushy_control"'), pushy.notify('pushy'), pushy.channel_grant('pushyfoot', 'public')""")


def test_a_watch_on_a_channel_that_another_role_has_closed_says_so(two):
    two.sql("CREATE TABLE t (i int PRIMARY KEY); GRANT TRIGGER ON t TO PUBLIC")
    grant(two, two.friend)
    said = {}
    for user in (two.owner, two.friend, two.stranger):
        with two.connect(user=user) as session:
            notices = said[user] = []
            session.add_notice_handler(lambda diagnostic: notices.append(f"{diagnostic.severity} {diagnostic.message_primary} / {diagnostic.message_hint}"))
            session.execute("SELECT pushy.watch('t', channel => 'secret', name => %s)", (user,))
    warnings = {user: [line for line in lines if not line.startswith("NOTICE watches ")] for user, lines in said.items()}
    assert warnings[two.owner] == warnings[two.friend] == []
    [warning] = warnings[two.stranger]
    assert warning.startswith(f'WARNING role "{two.stranger}" may not read channel secret, which role "{two.owner}" has closed')
    assert f"pushy.channel_grant('secret', '{two.stranger}')" in warning


def test_a_role_owns_as_many_channels_as_the_setting_allows(two):
    two.sql(f"ALTER ROLE {two.owner} SET pushy.max_channels_per_role = 3")
    with two.connect(user=two.owner) as session:
        session.execute("SELECT pushy.channel_grant('c' || n, 'public') FROM generate_series(1, 3) n")
        refused(session, "SELECT pushy.channel_grant('c4', 'public')", "53400", "pushy.max_channels_per_role", "3", two.owner)
        session.execute("SELECT pushy.channel_grant('c3', 'postgres')")
    grant(two, two.friend, by=two.stranger)


def test_a_reader_of_all_hears_the_same_beside_thousands_of_channels(two):
    """Then it looks up those that it meets: eighty thousand made each read of anybody's take most of a second."""
    two.sql("SELECT pushy.channel_grant('c' || n, 'public') FROM generate_series(1, 1200) n")
    create(two, two.friend, None, "friends")
    create(two, two.stranger, None, "strangers")
    tell(two, "open")
    grant(two, two.owner)
    tell(two, "closed")
    grant(two, two.friend)
    tell(two, "granted")
    assert read(two, two.friend, "friends") == ["granted"]
    assert read(two, two.stranger, "strangers") == []
    call(two, two.owner, "SELECT pushy.channel_grant('secret', 'public')")
    tell(two, "all")
    assert read(two, two.stranger, "strangers") == ["all"]
    call(two, two.owner, "SELECT pushy.channel_revoke('secret', 'public')")
    assert read(two, two.stranger, "strangers") == []


def rows_of(db, user, name="s"):
    with db.connect(user=user) as session:
        return [row if row[2] else row[:2] for row in session.execute("SELECT channel, payload, resync FROM pushy.subscription_read(%s) WHERE channel IS DISTINCT FROM 'fence'", (name,))]


def state_of(db, user, name="s"):
    with db.connect(user=user) as session:
        return session.execute("SELECT state, fix, lag_notices FROM pushy.subscriptions WHERE name = %s", (name,)).fetchone()


def ack_all(db, user, name="s"):
    with db.connect(user=user) as session:
        return session.execute("SELECT pushy.subscription_ack(%s, (SELECT cursor FROM pushy.subscription_read(%s) OFFSET (SELECT count(*) - 1 FROM pushy.subscription_read(%s))))",
                               (name, name, name)).fetchone()[0]


@pytest.mark.parametrize("how", ["closed", "revoked"])
def test_a_reader_that_a_channel_was_taken_from_is_told_so_and_that_it_misses_notices(two, how):
    """What it may not read any more is refused and said in the view; once it is let in again it is told to resync, and goes on."""
    reader = two.stranger
    if how == "revoked":
        grant(two, reader)
    create(two, reader)
    tell(two, "a")
    assert rows_of(two, reader) == [("secret", "a")] and ack_all(two, reader)
    assert state_of(two, reader) == ("active", None, 0)
    if how == "closed":
        # A superuser may, though another's subscription names it.
        grant(two, two.friend, by="postgres")
        owner = "postgres"
    else:
        call(two, two.owner, "SELECT pushy.channel_revoke('secret', %s)", reader)
        owner = two.owner
    tell(two, "b")
    denied(two, reader, "SELECT count(*) FROM pushy.subscription_read('s')")
    state, fix, lag = state_of(two, reader)
    assert (state, lag) == ("denied", None), "what is said there is not its owner's to count"
    assert state_of(two, "postgres")[::2] == ("denied", 1), "what waits for it"
    call(two, owner, fix[fix.index("SELECT"):])
    assert state_of(two, reader)[0] == "resync"
    assert rows_of(two, reader) == [(None, None, True)]
    tell(two, "c")
    assert rows_of(two, reader) == [(None, None, True), ("secret", "c")]
    with two.connect(user=reader) as session:
        # One that takes a row at a time is told once.
        told = []
        for _ in range(2):
            cursor, channel, resync = session.execute("SELECT cursor, channel, resync FROM pushy.subscription_read('s', 1)").fetchone()
            told.append((channel, resync))
            session.execute("SELECT pushy.subscription_ack('s', %s)", (cursor,))
        assert told == [(None, True), ("secret", False)]
    assert state_of(two, reader) == ("active", None, 0)


def test_a_reader_of_all_is_told_of_what_it_had_not_read_when_a_channel_was_closed_to_it(two):
    create(two, two.stranger, None)
    tell(two, "a")
    grant(two, two.stranger)
    tell(two, "b")
    assert rows_of(two, two.stranger) == [(None, None, True), ("secret", "b")]


def test_a_queue_whose_subscription_is_let_in_again_gets_a_job_that_says_so(two):
    reader = two.stranger
    two.sql(f"CREATE FUNCTION work() RETURNS void LANGUAGE sql AS ''; SELECT pushy.queue_register('q', 'work()'), pushy.queue_grant('q', '{reader}')")
    create(two, reader, queue="'q'")
    tell(two, "a")
    two.wait_until("SELECT count(*) FROM pushy.jobs", 1)
    grant(two, two.friend, by="postgres")
    tell(two, "b")
    two.wait_until("SELECT state FROM pushy.subscriptions WHERE name = 's'", "denied")
    two.wait_until("SELECT stopped IS NOT NULL FROM pushy.subscriptions WHERE name = 's'", True)
    fix = state_of(two, reader)[1]
    call(two, "postgres", fix[fix.index("SELECT"):])
    # At once: the grant wakes the relay.
    two.wait_until("SELECT count(*) FROM pushy.jobs", 2)
    assert two.rows("SELECT args FROM pushy.jobs ORDER BY id") == [({"channel": "secret", "payload": "a"},), ({"resync": True},)]
    two.wait_until("SELECT state FROM pushy.subscriptions WHERE name = 's'", "active")
