#!/usr/bin/env python3
"""An image with only the extension's files, as CloudNativePG mounts it beside a PostgreSQL (from 18 on, which looks for extensions in more
places than one): /lib, /share/extension and /licenses. `image.py TREE FILE VERSION MAJOR`: from an installed tree to an archive in OCI's layout,
which skopeo, podman and buildah copy to a registry. It needs no daemon and no network, and the same tree gives the same bytes.
"""

import gzip
import hashlib
import io
import json
import os
import platform
import sys
import tarfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
MADE = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))


def contents(tree: Path) -> dict[str, bytes]:
    """What is in the image, by path."""
    found = {f"lib/{path.name}": path for path in tree.rglob("pushy.so")}
    found |= {f"share/extension/{path.name}": path for pattern in ("pushy.control", "pushy--*.sql") for path in tree.rglob(pattern)}
    if len(found) < 3:
        raise SystemExit(f"image: no extension in {tree}")
    found |= {f"licenses/pushy/{name}": ROOT / name for name in ("LICENSE", "THIRD-PARTY")}
    return {name: path.read_bytes() for name, path in found.items()}


def archive(files: dict[str, bytes]) -> bytes:
    """A tar of these files and their folders, all root's, of one time."""
    folders = {str(parent) for name in files for parent in Path(name).parents if str(parent) != "."}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(folders | files.keys()):
            entry = tarfile.TarInfo(name)
            entry.mtime = MADE
            if name in folders:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
            else:
                entry.size, entry.mode = len(files[name]), 0o644
                tar.addfile(entry, io.BytesIO(files[name]))
    return buffer.getvalue()


def image(layer: bytes, version: str, major: str) -> dict[str, bytes]:
    """The files of OCI's layout (image-spec 1.0) for one layer."""
    blobs: dict[str, bytes] = {}

    def blob(kind: str, data: bytes) -> dict:
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    def as_json(value: dict) -> bytes:
        return json.dumps(value, indent=1).encode()

    about = {
        "org.opencontainers.image.title": "pushy",
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.description": f"Queues, jobs and notices inside PostgreSQL {major}: the extension's files",
        "org.opencontainers.image.licenses": "MIT",
    }
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(MADE))
    config = blob("config.v1+json", as_json({
        "created": created,
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Labels": about},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created": created, "created_by": "tools/package/image.py"}],
    }))
    manifest = blob("manifest.v1+json", as_json({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [blob("layer.v1.tar+gzip", gzip.compress(layer, mtime=0))],
        "annotations": about,
    }))
    tag = {"annotations": {"org.opencontainers.image.ref.name": f"{version}-{major}"}}
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest | tag]}
    return {"oci-layout": as_json({"imageLayoutVersion": "1.0.0"}), "index.json": as_json(index)} | blobs


def main() -> None:
    tree, target, version, major = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    target.write_bytes(archive(image(archive(contents(tree)), version, major)))


if __name__ == "__main__":
    main()
