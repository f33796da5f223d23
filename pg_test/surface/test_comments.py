"""COMMENTs, as `\\df+` and `\\d+` show them: the first sentence stands alone and is short, and no more than three follow."""

import re

import pytest

COMMENTS = """
    WITH member AS (SELECT classid, objid FROM pg_depend
                     WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
                       AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pushy'))
    SELECT pg_describe_object(d.classoid, d.objoid, d.objsubid), d.description FROM pg_description d
     WHERE (d.classoid, d.objoid) IN (SELECT classid, objid FROM member)
        OR d.classoid = 'pg_trigger'::regclass
           AND d.objoid IN (SELECT t.oid FROM pg_trigger t JOIN member m ON m.classid = 'pg_class'::regclass AND m.objid = t.tgrelid)
        OR d.classoid = 'pg_constraint'::regclass
           AND d.objoid IN (SELECT c.oid FROM pg_constraint c JOIN member m ON m.classid = 'pg_class'::regclass AND m.objid = c.conrelid)
        OR d.classoid = 'pg_class'::regclass
           AND d.objoid IN (SELECT i.indexrelid FROM pg_index i JOIN member m ON m.classid = 'pg_class'::regclass AND m.objid = i.indrelid)
     ORDER BY 1"""
MOST_SENTENCES, LONGEST_FIRST = 4, 170
# Words with which a sentence goes on from another.
GOES_ON = re.compile(r"(?:It|Its|They|Their|This|That|Those|These|Of|As|Also|Otherwise|The same)\b")


def wrong_with(text: str) -> list[str]:
    said = [sentence for sentence in re.split(r"(?<=[.!?])\s+", text) if sentence]
    found = []
    if not text.endswith("."):
        found.append("no full stop")
    if len(said) > MOST_SENTENCES:
        found.append(f"{len(said)} sentences: docs/ has room for the others")
    if said and len(said[0]) > LONGEST_FIRST:
        found.append(f"a first sentence of {len(said[0])} letters")
    if GOES_ON.match(text):
        found.append(f"begins with '{GOES_ON.match(text)[0]}'")
    return found


def test_first_sentences_stand_alone_and_few_follow(db):
    comments = db.rows(COMMENTS)
    assert len(comments) > 300
    assert {what: wrong for what, text in comments if (wrong := wrong_with(text))} == {}


@pytest.mark.parametrize("text, wrong", [
    ("Adds a job. It runs later.", []),
    ("Adds a job", ["no full stop"]),
    ("Its name.", ["begins with 'Its'"]),
    ("A. B. C. D. E.", ["5 sentences: docs/ has room for the others"]),
    (f"A{'a' * 170}.", ["a first sentence of 172 letters"]),
])
def test_the_check_sees_what_is_wrong(text, wrong):
    assert wrong_with(text) == wrong
