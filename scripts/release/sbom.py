#!/usr/bin/env python3
"""Writes the software bill of materials of the program, in CycloneDX 1.5: the crates of `Cargo.lock` that it contains.

usage: sbom.py [--target TRIPLE] [--epoch SECONDS] >tagrelay.cdx.json

The same sources give the same bytes.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tomllib
import uuid

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
PROGRAM = "tagrelay"


def metadata(target: str) -> dict:
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)


def dependencies(node: dict) -> list[str]:
    """The ids of packages that are part of the program: neither those of tests nor those of build scripts."""
    return [one["pkg"] for one in node["deps"] if any(kind["kind"] is None for kind in one["dep_kinds"])]


def contained(nodes: dict[str, dict], root: str) -> set[str]:
    found, waiting = set(), [root]
    while waiting:
        package = waiting.pop()
        if package not in found:
            found.add(package)
            waiting.extend(dependencies(nodes[package]))
    return found


def reference(package: dict) -> str:
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package: dict, checksums: dict[tuple[str, str], str]) -> dict:
    made = {
        "type": "application" if package["name"] == PROGRAM else "library",
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
        "purl": reference(package),
    }
    if package["license"]:
        made["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if package["description"]:
        made["description"] = package["description"].strip()
    if package["repository"]:
        made["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    checksum = checksums.get((package["name"], package["version"]))
    if checksum:
        made["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return made


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", default="x86_64-unknown-linux-musl")
    parser.add_argument("--epoch", type=int, default=int(os.environ.get("SOURCE_DATE_EPOCH", "0")))
    arguments = parser.parse_args()
    data = metadata(arguments.target)
    with open(os.path.join(ROOT, "Cargo.lock"), "rb") as file:
        locked = tomllib.load(file)["package"]
    checksums = {(one["name"], one["version"]): one["checksum"] for one in locked if "checksum" in one}
    packages = {package["id"]: package for package in data["packages"]}
    nodes = {node["id"]: node for node in data["resolve"]["nodes"]}
    root = next(one for one in data["workspace_members"] if packages[one]["name"] == PROGRAM)
    chosen = sorted(contained(nodes, root), key=lambda one: reference(packages[one]))
    components = [component(packages[one], checksums) for one in chosen if one != root]
    edges = [
        {"ref": reference(packages[one]), "dependsOn": sorted({reference(packages[to]) for to in dependencies(nodes[one])})}
        for one in chosen
    ]
    time = datetime.datetime.fromtimestamp(arguments.epoch, datetime.timezone.utc)
    content = {
        "components": components,
        "dependencies": edges,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": component(packages[root], checksums),
        },
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(content, sort_keys=True))
    bom = {"bomFormat": "CycloneDX", "specVersion": "1.5", "serialNumber": f"urn:uuid:{serial}", "version": 1, **content}
    json.dump(bom, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
