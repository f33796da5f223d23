"""SQL regression: each file of sql/ in a database of its own, compared by pg_regress with expected/."""

import subprocess

import pytest

from harness.installation import REPOSITORY

HERE = REPOSITORY / "pg_test"
FILES = sorted(path.stem for path in (HERE / "sql").glob("*.sql"))


@pytest.mark.parametrize("name", FILES)
def test_the_output_is_as_expected(name, db, installation, tmp_path):
    pkglibdir = subprocess.check_output([installation.program("pg_config"), "--pkglibdir"], text=True).strip()
    done = subprocess.run(
        [f"{pkglibdir}/pgxs/src/test/regress/pg_regress", f"--bindir={installation.bindir}", f"--inputdir={HERE}",
         f"--outputdir={tmp_path}", "--use-existing", f"--dbname={db.name}", f"--host={db.cluster.folder}",
         f"--port={db.cluster.port}", "--user=postgres", name],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    differences = tmp_path / "regression.diffs"
    assert done.returncode == 0, (differences.read_text() if differences.exists() else done.stdout)
