#!/usr/bin/env python3
"""Checks a released program: static, stripped, for this architecture, with its dependencies and without build paths.

usage: check-program.py --arch amd64|arm64 [--forbid PATH]… FILE
"""

import argparse
import json
import struct
import sys
import zlib

MACHINES = {"amd64": 62, "arm64": 183}
PT_INTERP = 3
SHT_SYMTAB = 2


def unpack(form: str, data: bytes, offset: int) -> tuple[int, ...]:
    return struct.unpack_from("<" + form, data, offset)


def program_headers(elf: bytes) -> list[int]:
    """The types of the segments."""
    (start,) = unpack("Q", elf, 32)
    size, count = unpack("HH", elf, 54)
    return [unpack("I", elf, start + index * size)[0] for index in range(count)]


def sections(elf: bytes) -> dict[str, tuple[int, bytes]]:
    """Type and content of each section, by name."""
    (start,) = unpack("Q", elf, 40)
    size, count, names = unpack("HHH", elf, 58)
    headers = [unpack("IIQQQQ", elf, start + index * size) for index in range(count)]
    strings = headers[names][4]
    found = {}
    for name, kind, _, _, offset, length in headers:
        end = elf.index(b"\0", strings + name)
        found[elf[strings + name : end].decode()] = (kind, elf[offset : offset + length])
    return found


def faults(elf: bytes, arch: str, forbidden: list[str]) -> list[str]:
    if elf[:5] != b"\x7fELF\x02":
        return ["is no 64-bit ELF file"]
    found = []
    if unpack("H", elf, 18)[0] != MACHINES[arch]:
        found.append(f"is not for {arch}")
    if PT_INTERP in program_headers(elf):
        found.append("is linked dynamically")
    parts = sections(elf)
    if any(kind == SHT_SYMTAB for kind, _ in parts.values()):
        found.append("is not stripped")
    if ".dep-v0" not in parts:
        found.append("has no list of dependencies (cargo auditable)")
    else:
        packages = json.loads(zlib.decompress(parts[".dep-v0"][1]))["packages"]
        if not any(package["name"] == "tagrelay" for package in packages):
            found.append("has a list of dependencies without tagrelay")
    for path in forbidden:
        at = elf.find(path.encode())
        if at >= 0:
            found.append(f"contains the path {elf[at : at + 80].decode(errors='replace')!r}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--arch", choices=MACHINES, required=True)
    parser.add_argument("--forbid", action="append", default=[])
    parser.add_argument("file")
    arguments = parser.parse_args()
    with open(arguments.file, "rb") as file:
        found = faults(file.read(), arguments.arch, arguments.forbid)
    for fault in found:
        print(f"{arguments.file}: {fault}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
