"""What is made for others: PGXN's description, the image, the licences. `make check-packages` tries the rest, the .deb in a Debian of its own."""

import gzip
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

from harness.cluster import Cluster
from harness.installation import REPOSITORY, Installation, built, chosen_pg_config, major_of

TREE = built("dev")
CARGO = tomllib.loads((REPOSITORY / "Cargo.toml").read_text())
VERSION = CARGO["package"]["version"]


def test_pgxn_is_told_the_version_the_licence_and_files_that_there_are():
    meta = json.loads((REPOSITORY / "META.json").read_text())
    extension = meta["provides"]["pushy"]
    assert meta["version"] == extension["version"] == VERSION
    assert meta["license"] == CARGO["package"]["license"].lower()
    assert (REPOSITORY / extension["file"]).is_file() and (REPOSITORY / extension["docfile"]).is_file()
    oldest = min(int(feature[2:]) for feature in CARGO["features"] if feature.startswith("pg"))
    assert meta["prereqs"]["runtime"]["requires"] == {"PostgreSQL": f"{oldest}.0.0"}
    # What PGXN refuses.
    assert re.fullmatch(r"\d+\.\d+\.\d+", meta["version"]) and all(re.fullmatch(r"[^/\\\x00-\x1f]{2,256}", tag) for tag in meta["tags"])
    assert {"name", "abstract", "maintainer", "license", "meta-spec"} <= meta.keys()


def test_the_changelog_begins_with_this_version():
    assert re.search(r"^## (\S+?)[,\s]", (REPOSITORY / "CHANGELOG.md").read_text(), re.M)[1] == VERSION


def image(folder: Path, name: str) -> bytes:
    subprocess.run([sys.executable, REPOSITORY / "tools" / "package" / "image.py", TREE, folder / name, VERSION, "18"], check=True,
                   env={"SOURCE_DATE_EPOCH": "1700000000"})
    return (folder / name).read_bytes()


def test_the_image_has_the_extensions_files_and_nothing_else(tmp_path):
    layout = {entry.name: tar.extractfile(entry).read() for tar in [tarfile.open(fileobj=io.BytesIO(image(tmp_path, "oci.tar")))]
              for entry in tar if entry.isfile()}

    def blob(descriptor: dict) -> bytes:
        data = layout["blobs/" + descriptor["digest"].replace(":", "/")]
        assert hashlib.sha256(data).hexdigest() == descriptor["digest"].removeprefix("sha256:") and len(data) == descriptor["size"]
        return data

    assert json.loads(layout["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    manifest, = json.loads(layout["index.json"])["manifests"]
    assert manifest["annotations"]["org.opencontainers.image.ref.name"] == f"{VERSION}-18"
    manifest = json.loads(blob(manifest))
    config = json.loads(blob(manifest["config"]))
    layer, = manifest["layers"]
    unpacked = gzip.decompress(blob(layer))
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(unpacked).hexdigest()]

    with tarfile.open(fileobj=io.BytesIO(unpacked)) as tar:
        entries = tar.getmembers()
        script = TREE.rglob(f"pushy--{VERSION}.sql")
        assert tar.extractfile(f"share/extension/pushy--{VERSION}.sql").read() == next(script).read_bytes()
    updates = sorted(f"share/extension/{path.name}" for path in (REPOSITORY / "sql").glob("pushy--*--*.sql"))
    assert updates and [entry.name for entry in entries if entry.isfile()] == [
        "lib/pushy.so", "licenses/pushy/LICENSE", "licenses/pushy/THIRD-PARTY", *updates, f"share/extension/pushy--{VERSION}.sql", "share/extension/pushy.control"]
    assert {(entry.uid, entry.gid, entry.mtime, entry.mode) for entry in entries} == {(0, 0, 1700000000, 0o644), (0, 0, 1700000000, 0o755)}


@pytest.mark.skipif(major_of(chosen_pg_config()) < 18, reason="before 18 PostgreSQL looks for extensions in its own folder only")
def test_a_server_that_the_image_is_mounted_beside_needs_nothing_else(scratch, installation, tmp_path):
    house = scratch / tmp_path.name
    house.mkdir(mode=0o755)
    layout = tarfile.open(fileobj=io.BytesIO(image(tmp_path, "oci.tar")))
    layer, = (entry for entry in layout if entry.isfile() and layout.extractfile(entry).read(2) == b"\x1f\x8b")
    with tarfile.open(fileobj=layout.extractfile(layer)) as mounted:
        mounted.extractall(house / "mounted")
    empty = Installation.create(house / "pg", None, str(installation.program("pg_config")))
    cluster = Cluster(house / "c", empty, {"extension_control_path": f"{house}/mounted/share:$system",
                                           "dynamic_library_path": f"{house}/mounted/lib:$libdir"})
    try:
        db = cluster.create(scratch / "t" / "data").start().database()
        db.sql("CREATE FUNCTION work() RETURNS int LANGUAGE sql AS 'SELECT 7'; SELECT pushy.queue_register('q', 'work()')")
        assert db.job_wait(db.value("SELECT pushy.enqueue('q')"))["result"] == 7
    finally:
        cluster.remove()


def test_the_same_tree_makes_the_same_image(tmp_path):
    assert image(tmp_path, "one") == image(tmp_path, "other")


def test_each_package_that_is_linked_has_its_licence_told():
    subprocess.run([sys.executable, REPOSITORY / "tools" / "package" / "third_party.py", "check"], check=True)
