"""What was measured, kept as JSON: each section with its day, machine, versions and settings, so that a section can be
measured again alone."""

import datetime
import json
import os
import platform
from pathlib import Path


class Figures:
    def __init__(self, path: Path | None):
        self.path = path
        self.sections: dict[str, dict] = json.loads(path.read_text()) if path and path.exists() else {}

    def keep(self, name: str, data: dict, servers, options) -> None:
        form = "full" if options.full else "short"
        self.sections[name] = {"when": datetime.datetime.now().isoformat(" ", "minutes"), "form": form,
                               "machine": f"{machine()}, data on {filesystem(servers.folder)}", "server": servers.installation.version, "data": data}
        if self.path:
            self.path.write_text(json.dumps(self.sections, indent=1) + "\n")

    def data(self, name: str) -> dict | None:
        return self.sections.get(name, {}).get("data")


def machine() -> str:
    return f"{cpu()}, {os.cpu_count()} cores, {memory()}, {platform.system()} {platform.release().split('-')[0]}"


def filesystem(folder: Path) -> str:
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    return max((mount for mount in mounts if folder.is_relative_to(mount[0])), key=lambda mount: len(mount[0]))[1]


def cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def memory() -> str:
    kilobytes = int(Path("/proc/meminfo").read_text().split("\n", 1)[0].split()[1])
    return f"{kilobytes / 2**20:.0f} GB"
