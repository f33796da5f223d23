"""A server for the tests of clients in any language, with the extension as tools/build.sh dev has built it:
real_server.py create | start FOLDER | stop FOLDER MODE | remove FOLDER. `create` prints its folder, where its socket is."""

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "pg_test"))
from harness.cluster import Cluster  # noqa: E402
from harness.installation import Installation  # noqa: E402
from harness.scratch import OWNER, Scratch, started  # noqa: E402

REPOSITORY = Path(__file__).parents[2]
# As tools/gateway.sh dev has built it.
GATEWAY = os.environ.get("PUSHY_GATEWAY") or REPOSITORY / "target/gateway/debug/pushy-gateway"
SETTINGS = {"max_connections": 200, "listen_addresses": "", "pushy.gateway_program": GATEWAY}


class Server:
    def __init__(self, scratch: Scratch, installation: Installation) -> None:
        self.scratch = scratch
        self.cluster = Cluster(scratch.path / "c", installation, SETTINGS)

    @classmethod
    def create(cls) -> "Server":
        scratch = Scratch.create()
        server = cls(scratch, Installation.of_build(scratch.path / "pg", "dev"))
        server.cluster.create().start()
        return server

    @classmethod
    def found(cls, folder: Path) -> "Server":
        scratch = Scratch(folder.parent)
        return cls(scratch, Installation.found(scratch.path / "pg"))

    def remove(self) -> None:
        self.cluster.remove()
        self.scratch.remove()


def main(what: str, folder: str = "", mode: str = "fast") -> None:
    if what == "create":
        server = Server.create()
        # It lives as long as who has asked for it: others' tests remove what is nobody's.
        asked = os.getppid()
        (server.scratch.path / OWNER).write_text(f"{asked} {started(asked)}")
        print(server.cluster.folder)
        return
    server = Server.found(Path(folder))
    match what:
        case "start":
            server.cluster.start()
        case "stop":
            server.cluster.stop(mode)
        case "remove":
            server.remove()


if __name__ == "__main__":
    main(*sys.argv[1:])
