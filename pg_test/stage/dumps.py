"""A database dumped by pg_dump, and loaded into another."""


def dump(db, *options):
    said = db.cluster.run("pg_dump", "-h", db.cluster.folder, "-p", db.cluster.port, "-U", "postgres",
                          "-f", db.cluster.folder / f"{db.name}.sql", *options, db.name).stdout
    assert said == "", said
    return (db.cluster.folder / f"{db.name}.sql").read_text()


def restore(cluster, text, name):
    copy = cluster.database(name, extension=False)
    said = cluster.psql(name, text)
    assert "ERROR" not in said, said
    return copy, said
