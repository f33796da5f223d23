"""What a handler raises is the handler's, whatever its SQLSTATE: charged, recorded, ended by max_attempts."""

import re

import pytest

from stage.batches import states


def every_sqlstate(db) -> list[str]:
    """All that the server knows, by its own list, and one of a class that nobody knows. What is no error (success, a
    warning, no data) can be raised as one."""
    listed = db.cluster.installation.sharedir / "errcodes.txt"
    codes = re.findall(r"^([0-9A-Z]{5})\s", listed.read_text(), re.MULTILINE)
    assert len(set(codes)) > 250 and {"53100", "58P01", "57014", "57P01", "40001", "55P03", "XX000"} <= set(codes)
    # plpgsql takes 00000 for 'nothing said'.
    return sorted(set(codes) - {"00000"}) + ["ZZZZZ"]


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("max_attempts", [1, 2])
def test_every_sqlstate_raised_by_a_handler_is_charged_and_recorded(db, batch, max_attempts):
    """Also with a job that goes well on either side, which nobody charges."""
    db.sql("""
        CREATE TABLE effects (code text);
        CREATE FUNCTION work(args jsonb) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO public.effects VALUES (args->>'code');
            IF args ? 'raise' THEN RAISE EXCEPTION 'raised %', args->>'code' USING ERRCODE = args->>'code'; END IF;
        END $$""")
    db.sql("SELECT pushy.queue_register('q', 'work(jsonb)', retry_delay => '0', batch => %s, max_attempts => %s)", batch, max_attempts)
    codes = every_sqlstate(db)
    db.sql("""
        SELECT pushy.enqueue_many('q', ARRAY(
            SELECT CASE WHEN raises THEN jsonb_build_object('code', code, 'raise', true) ELSE jsonb_build_object('code', code) END
              FROM unnest(%s::text[]) code, unnest('{true,false}'::boolean[]) raises))""", codes)
    db.jobs_wait("q", 60)
    assert states(db) == {"completed": len(codes), "discarded": len(codes)}
    assert db.rows("SELECT code COLLATE \"C\" FROM effects ORDER BY 1") == [(code,) for code in codes]
    recorded = db.rows("""
        SELECT j.args->>'code' COLLATE "C", f.sqlstate, f.attempt, f.message = 'raised ' || (j.args->>'code') OR f.sqlstate = '57014'
          FROM pushy.failures f JOIN pushy.jobs j ON j.id = f.job_id ORDER BY 1, f.attempt""")
    assert recorded == [(code, code, attempt, True) for code in codes for attempt in range(1, max_attempts + 1)]


def test_a_file_that_is_not_there_is_the_handlers_failure(db):
    db.sql("""
        CREATE FUNCTION work() RETURNS text LANGUAGE sql AS $$ SELECT pg_read_file('/nonexistent') $$;
        SELECT pushy.queue_register('q', 'work()', max_attempts => 1)""")
    done = db.job_wait(db.value("SELECT pushy.enqueue('q')"))
    assert (done["state"], done["attempt"]) == ("discarded", 1)
    assert db.rows("SELECT sqlstate, message LIKE '%/nonexistent%' FROM pushy.failures") == [("58P01", True)]
