"""Validates a CycloneDX file in JSON. usage: validate-cyclonedx.py FILE"""

import json
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

if sys.argv[1] in ("--version", "--help"):
    print("CycloneDX 1.5 and 1.6")
    sys.exit()
with open(sys.argv[1], encoding="utf-8") as file:
    text = file.read()
version = SchemaVersion.from_version(json.loads(text)["specVersion"])
error = JsonStrictValidator(version).validate_str(text)
if error is not None:
    sys.exit(f"{sys.argv[1]}: {error}")
