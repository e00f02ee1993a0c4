#!/usr/bin/env python3
"""Assembles the container image from static programs, without a container engine.

usage: image.py --version V --platform ARCH=PROGRAM… --out FOLDER
                [--revision SHA] [--source URL] [--certificates FILE]

The result is an OCI layout with an index of the platforms, named by the version. Nothing runs, so each platform can be
assembled on any machine. The same input gives the same bytes; SOURCE_DATE_EPOCH is the time of the image.

    skopeo copy --all oci:FOLDER:VERSION docker://registry.example.com/platform/tagrelay:VERSION
"""

import argparse
import datetime
import gzip
import hashlib
import io
import json
import os
import shutil
import sys
import tarfile

USER = 65532
HOME = "/var/lib/tagrelay"
PROGRAM = "usr/local/bin/tagrelay"
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
TITLE = "Tagrelay"
DESCRIPTION = "Relays image tags from container registries to the Git repository that Argo CD watches"

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


class Layout:
    """An OCI layout in a folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(os.path.join(folder, "blobs", "sha256"))
        self.write("oci-layout", to_json({"imageLayoutVersion": "1.0.0"}))

    def write(self, name: str, content: bytes) -> None:
        with open(os.path.join(self.folder, name), "wb") as file:
            file.write(content)

    def blob(self, content: bytes, media_type: str) -> dict:
        """Adds a blob and returns its descriptor."""
        digest = hashlib.sha256(content).hexdigest()
        self.write(os.path.join("blobs", "sha256", digest), content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}


def to_json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


class Layer:
    """A layer whose files all have the same time."""

    def __init__(self, time: int) -> None:
        self.time = time
        self.buffer = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.buffer, mode="w", format=tarfile.USTAR_FORMAT)

    def folder(self, name: str, mode: int = 0o755, owner: int = 0) -> None:
        self.add(name, tarfile.DIRTYPE, b"", mode, owner)

    def file(self, name: str, content: bytes, mode: int = 0o644) -> None:
        self.add(name, tarfile.REGTYPE, content, mode, 0)

    def add(self, name: str, kind: bytes, content: bytes, mode: int, owner: int) -> None:
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode, entry.mtime = kind, mode, self.time
        entry.uid = entry.gid = owner
        entry.size = len(content)
        self.tar.addfile(entry, io.BytesIO(content))

    def finish(self, layout: Layout) -> tuple[dict, str]:
        """Returns the descriptor, and the digest of the uncompressed layer."""
        self.tar.close()
        content = self.buffer.getvalue()
        packed = gzip.compress(content, compresslevel=9, mtime=0)
        return layout.blob(packed, LAYER), "sha256:" + hashlib.sha256(content).hexdigest()


def base_layer(time: int, certificates: bytes) -> Layer:
    """What the program needs of a system. It has its own time zones, Git, SSH and TLS."""
    layer = Layer(time)
    for name in ["etc", "etc/ssl", "etc/ssl/certs", "usr", "usr/local", "usr/local/bin", "var", "var/lib"]:
        layer.folder(name)
    layer.file("etc/passwd", f"root:x:0:0:root:/:/none\nnonroot:x:{USER}:{USER}:nonroot:{HOME}:/none\n".encode())
    layer.file("etc/group", f"root:x:0:\nnonroot:x:{USER}:\n".encode())
    layer.file(CERTIFICATES, certificates)
    layer.folder("tmp", 0o1777)
    # A volume mounted here gets this owner, so the program can write to it.
    layer.folder(HOME.strip("/"), 0o755, USER)
    return layer


def labels(arguments: argparse.Namespace, created: str) -> dict[str, str]:
    found = {
        "title": TITLE,
        "description": DESCRIPTION,
        "licenses": "Apache-2.0",
        "version": arguments.version,
        "created": created,
        "revision": arguments.revision,
        "source": arguments.source,
    }
    return {f"org.opencontainers.image.{key}": value for key, value in found.items() if value}


def main() -> int:
    parser = argparse.ArgumentParser(description="Assembles the container image from static programs.")
    parser.add_argument("--version", required=True)
    parser.add_argument("--platform", action="append", required=True, metavar="ARCH=PROGRAM")
    parser.add_argument("--out", required=True)
    parser.add_argument("--revision", default="")
    parser.add_argument("--source", default="")
    parser.add_argument("--certificates", default="/" + CERTIFICATES)
    arguments = parser.parse_args()

    time = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    created = datetime.datetime.fromtimestamp(time, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    try:
        with open(arguments.certificates, "rb") as file:
            certificates = file.read()
    except OSError as error:
        print(f"error: {error}: install the package ca-certificates, or name a file with --certificates", file=sys.stderr)
        return 1

    layout = Layout(arguments.out)
    base, base_id = base_layer(time, certificates).finish(layout)
    named = labels(arguments, created)
    platforms = []
    for pair in arguments.platform:
        arch, program = pair.split("=", 1)
        layer = Layer(time)
        with open(program, "rb") as file:
            layer.file(PROGRAM, file.read(), 0o755)
        own, own_id = layer.finish(layout)
        config = {
            "architecture": arch,
            "os": "linux",
            "created": created,
            "config": {
                "User": f"{USER}:{USER}",
                "WorkingDir": HOME,
                "Entrypoint": ["/" + PROGRAM],
                "Cmd": ["serve", "--config", "/etc/tagrelay/tagrelay.toml"],
                "Env": ["PATH=/usr/local/bin", "SSL_CERT_FILE=/" + CERTIFICATES],
                "ExposedPorts": {"8080/tcp": {}, "9090/tcp": {}},
                "Labels": named,
            },
            "rootfs": {"type": "layers", "diff_ids": [base_id, own_id]},
            "history": [
                {"created": created, "created_by": "CA certificates, users and folders"},
                {"created": created, "created_by": f"/{PROGRAM}"},
            ],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": layout.blob(to_json(config), CONFIG),
            "layers": [base, own],
            "annotations": named,
        }
        descriptor = layout.blob(to_json(manifest), MANIFEST)
        platforms.append({**descriptor, "platform": {"architecture": arch, "os": "linux"}})
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": platforms, "annotations": named}
    root = layout.blob(to_json(index), INDEX)
    root["annotations"] = {"org.opencontainers.image.ref.name": arguments.version}
    layout.write("index.json", to_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [root]}))
    print(root["digest"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
