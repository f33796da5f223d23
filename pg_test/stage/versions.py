"""Versions of Pushy beside the one that was built: the archived ones, and a next one that is made up."""

import hashlib
import os
import re
from pathlib import Path

from harness.database import Database
from harness.installation import REPOSITORY, Installation, built, chosen_pg_config

OWN = re.search(r'^version = "(.*)"', (REPOSITORY / "Cargo.toml").read_text(), re.M)[1]
ARCHIVE = REPOSITORY / "sql" / "archive"
NEXT = "9.9.9"
MARK = re.compile(rb"pushy works with scripts \[([^\]]*)\]")

BEGIN = "SELECT pushy_internal.script_begins();\n"
# What the made-up version adds: something of each kind that an update script is about.
CHANGE = """
CREATE TABLE pushy_internal.parcel (job_id bigint NOT NULL, until timestamptz NOT NULL, PRIMARY KEY (job_id)) USING heap;
COMMENT ON TABLE pushy_internal.parcel IS 'Parcels.';
REVOKE ALL ON pushy_internal.parcel FROM PUBLIC;
CREATE TRIGGER refuse_write BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON pushy_internal.parcel
  FOR EACH STATEMENT EXECUTE FUNCTION pushy_internal.refuse_write('dumped');
ALTER TABLE pushy_internal.parcel ENABLE ALWAYS TRIGGER refuse_write;
SELECT pg_catalog.pg_extension_config_dump('pushy_internal.parcel', '');
GRANT SELECT, INSERT ON pushy_internal.parcel TO pg_database_owner;

ALTER TABLE pushy_internal.subscription ADD COLUMN stamp text;
ALTER TABLE pushy_internal.subscription ALTER COLUMN stamp TYPE varchar;

CREATE FUNCTION pushy.parcel_count() RETURNS bigint LANGUAGE sql AS 'SELECT pg_catalog.count(*) FROM pushy_internal.parcel';
COMMENT ON FUNCTION pushy.parcel_count() IS 'Parcels.';
REVOKE ALL ON FUNCTION pushy.parcel_count() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pushy.parcel_count() TO PUBLIC;

CREATE OR REPLACE FUNCTION pushy.job_cancel(job_id bigint)
RETURNS boolean LANGUAGE c VOLATILE PARALLEL UNSAFE COST 2 AS 'MODULE_PATHNAME', 'pushy_job_cancel_v1';
COMMENT ON FUNCTION pushy.job_cancel(bigint) IS 'Cancels a job.';

CREATE VIEW pushy.parcels WITH (security_barrier) AS SELECT p.job_id, p.until FROM pushy_internal.parcel p;
COMMENT ON VIEW pushy.parcels IS 'Parcels.';
GRANT SELECT ON pushy.parcels TO PUBLIC;
"""


def installation(folder: Path) -> Installation:
    """PostgreSQL with the extension as it was built, to be changed."""
    return Installation.create(folder, built("dev"), chosen_pg_config())


def script(version: str = OWN) -> str:
    """The install script of a version: this one's, or an archived one's."""
    if version != OWN:
        return (ARCHIVE / f"pushy--{version}.sql").read_text()
    return next(built("dev").rglob(f"pushy--{OWN}.sql")).read_text()


def archived() -> list[str]:
    return sorted(re.fullmatch(r"pushy--(.*)\.sql", path.name)[1] for path in ARCHIVE.glob("pushy--*.sql"))


def checksums(folder: Path = ARCHIVE) -> dict[str, str]:
    return {name: said for said, name in (line.split() for line in (folder / "CHECKSUMS").read_text().splitlines())}


def checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def put(installed: Installation, name: str, text: str) -> None:
    (installed.sharedir / "extension" / name).write_text(text)


def put_script(installed: Installation, version: str, text: str, *, default: bool = False) -> None:
    put(installed, f"pushy--{version}.sql", text)
    if default:
        control = installed.sharedir / "extension" / "pushy.control"
        control.write_text(re.sub(r"default_version = .*", f"default_version = '{version}'", control.read_text()))


def put_next(installed: Installation, change: str = CHANGE, begin: str = BEGIN) -> None:
    """The scripts of the next version, as a package brings them; the library is another matter."""
    put_script(installed, NEXT, script() + change, default=True)
    put(installed, f"pushy--{OWN}--{NEXT}.sql", begin + change)


def put_library(installed: Installation, *works_with: str) -> None:
    """A library that works with these versions of the script, its own first. Renamed onto the old file: a server that runs goes on with that."""
    library = next(installed.root.rglob("pushy.so"))
    content = library.read_bytes()
    found, = MARK.finditer(content)
    room = found.end(1) - found.start(1)
    said = " ".join(works_with).encode().ljust(room)
    assert len(said) == room
    new = library.with_suffix(".new")
    new.write_bytes(content[:found.start(1)] + said + content[found.end(1):])
    os.rename(new, library)


# What a script makes, object by object, without the numbers of this database.
SHAPE = """
WITH member AS (
  SELECT d.classid, d.objid, i.type, i.identity FROM pg_depend d, pg_identify_object(d.classid, d.objid, 0) i
   WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pushy')),
relation AS (SELECT c.*, m.identity FROM member m JOIN pg_class c ON c.oid = m.objid AND m.classid = 'pg_class'::regclass)
SELECT type, identity, coalesce(obj_description(objid, classid::regclass::text), '') FROM member
UNION ALL SELECT 'function of', identity, pg_get_functiondef(objid) || coalesce(p.proacl::text, '')
  FROM member JOIN pg_proc p ON p.oid = objid AND classid = 'pg_proc'::regclass
UNION ALL SELECT 'relation of', identity, concat_ws(' ', relkind, relpersistence, reloptions::text, relacl::text, relam::text,
       CASE relkind WHEN 'v' THEN pg_get_viewdef(oid) END) FROM relation
UNION ALL SELECT 'column of', identity, concat_ws(' ', attnum, attname, format_type(atttypid, atttypmod), attnotnull, attstorage, attacl::text,
       pg_get_expr(adbin, adrelid), col_description(relation.oid, attnum))
  FROM relation JOIN pg_attribute a ON a.attrelid = relation.oid AND attnum > 0 AND NOT attisdropped LEFT JOIN pg_attrdef d ON (adrelid, adnum) = (attrelid, attnum)
UNION ALL SELECT 'attribute of', identity, concat_ws(' ', attnum, attname, format_type(atttypid, atttypmod))
  FROM member JOIN pg_type t ON t.oid = objid AND classid = 'pg_type'::regclass JOIN pg_attribute a ON a.attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped
UNION ALL SELECT 'privileges on', identity, coalesce(typacl::text, '') FROM member JOIN pg_type t ON t.oid = objid AND classid = 'pg_type'::regclass
UNION ALL SELECT 'constraint of', identity, concat_ws(' ', conname, pg_get_constraintdef(k.oid)) FROM relation JOIN pg_constraint k ON conrelid = relation.oid
UNION ALL SELECT 'index of', identity, concat_ws(' ', pg_get_indexdef(indexrelid), obj_description(indexrelid, 'pg_class'))
  FROM relation JOIN pg_index ON indrelid = relation.oid
UNION ALL SELECT 'trigger of', identity, concat_ws(' ', pg_get_triggerdef(t.oid), tgenabled, obj_description(t.oid, 'pg_trigger'))
  FROM relation JOIN pg_trigger t ON tgrelid = relation.oid
UNION ALL SELECT 'sequence of', identity,
       concat_ws(' ', seqtypid::regtype, seqstart, seqincrement, seqmax, seqmin, seqcache, seqcycle) FROM relation JOIN pg_sequence ON seqrelid = relation.oid
UNION ALL SELECT 'dumped', config::regclass::text, coalesce(extcondition[at], '')
  FROM pg_extension, unnest(extconfig) WITH ORDINALITY u (config, at) WHERE extname = 'pushy'
UNION ALL SELECT 'schema of', nspname, coalesce(nspacl::text, '') FROM member JOIN pg_namespace n ON n.oid = objid AND classid = 'pg_namespace'::regclass
"""


def shape(db: Database) -> set[tuple]:
    return set(db.rows(f"SELECT DISTINCT s.* FROM ({SHAPE}) s"))
