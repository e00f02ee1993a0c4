#!/usr/bin/env python3
"""Writes the samples of tests/ as seeds: fuzz/corpus/{senders,tokens,scan,edit,insert}."""

import json
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDERS = {"dockerhub": "docker-hub", "harbor-cloudevents": "harbor", "acr-eventgrid": "acr"}

# In the order of the table, because the fuzz target chooses the sender by index.
table = (ROOT / "crates/webhook/src/senders/mod.rs").read_text()
files = re.findall(r"=> (\w+),", table.split("\nsenders! {")[1].split("\n}")[0])
sources = [(ROOT / f"crates/webhook/src/senders/{file}.rs").read_text() for file in files]
names = [re.search(r'name: "([\w-]+)"', source).group(1) for source in sources]

senders = ROOT / "fuzz/corpus/senders"
senders.mkdir(parents=True, exist_ok=True)
for meta_path in sorted((ROOT / "tests/fixtures/webhooks").glob("*/*.meta.json")):
    folder = meta_path.parent.name
    meta = json.loads(meta_path.read_text())
    body = meta_path.with_name(meta_path.name.replace(".meta.json", ".json")).read_bytes()
    lines = [f"{name}: {value}" for name, value in meta["headers"].items()]
    if "?" in meta["path_hint"]:
        lines.append("?" + meta["path_hint"].split("?", 1)[1])
    seed = bytes([names.index(FOLDERS.get(folder, folder))]) + "\n".join(lines).encode() + b"\n\n" + body
    (senders / f"{folder}-{meta_path.name.removesuffix('.meta.json')}").write_bytes(seed)

tokens = ROOT / "fuzz/corpus/tokens"
tokens.mkdir(parents=True, exist_ok=True)
for name, token in json.loads((ROOT / "tests/fixtures/webhook-signatures/tokens.json").read_text()).items():
    (tokens / name).write_text(token)
(tokens / "keys").write_bytes((ROOT / "tests/fixtures/webhook-signatures/keys.json").read_bytes())

# The first byte chooses the name in fuzz/src/lib.rs; 8 enables pinning, 16 rules and names.
for target in ("scan", "edit"):
    folder = ROOT / "fuzz/corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted((ROOT / "tests/manifest/corpus").rglob("*")):
        if not path.is_file():
            continue
        name = path.name
        choice = 5 if name.endswith(".json") else 3 if name.startswith(".argocd") else 1 if "ustomization" in name else 0
        label = "-".join(path.relative_to(ROOT / "tests/manifest/corpus").parts)
        for more in (0, 8, 16):
            (folder / f"{label}-{more}").write_bytes(bytes([choice + more]) + path.read_bytes())

# Kustomizations with a base: fuzz_targets/insert.rs expects three files separated by 0xff.
insert = ROOT / "fuzz/corpus/insert"
insert.mkdir(parents=True, exist_ok=True)
overlays = ROOT / "tests/manifest/corpus/overlays"
bases = [path for path in sorted((overlays / "base").rglob("*.yaml")) if path.is_file() and "ustomization" not in path.name]
for path in sorted(overlays.glob("*/*/*ustomization*")):
    for number, manifest in enumerate(bases):
        base = b"resources: [a.yaml]\n"
        text = re.sub(rb"(?:\.\./)+base[a-z/]*", b"../base", path.read_bytes())
        label = "-".join(path.relative_to(overlays).parts[:2])
        (insert / f"{label}-{number}").write_bytes(bytes([number % 16]) + b"\xff".join([text, base, manifest.read_bytes()]))
