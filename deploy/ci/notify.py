#!/usr/bin/env python3
"""Announces an image to Tagrelay's receiver of the kind `generic`, for registries without webhooks.

    TAGRELAY_URL=https://tagrelay.example.com/webhooks/ci TAGRELAY_SECRET=… python3 notify.py IMAGE:TAG[@DIGEST]

The key is read from the environment, because other processes can read arguments. Needs Python 3.8 and no packages. A failed
request is tried again: Tagrelay recognises what it has received already.
"""

import hashlib
import hmac
import json
import os
import sys
import time
import urllib.error
import urllib.request

PAUSES = [1, 2, 4, 8, 16]


def send(url, secret, image):
    body = json.dumps({"image": image}).encode()
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {"Content-Type": "application/json", "X-Tagrelay-Signature": f"sha256={signature}"}
    # The trace of the pipeline, if it has one.
    if os.environ.get("TRACEPARENT"):
        headers["traceparent"] = os.environ["TRACEPARENT"]
    request = urllib.request.Request(url, body, headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    missing = [name for name in ("TAGRELAY_URL", "TAGRELAY_SECRET") if not os.environ.get(name)]
    if missing:
        sys.exit(f"error: {' and '.join(missing)} must be set")
    for pause in [*PAUSES, None]:
        try:
            print(send(os.environ["TAGRELAY_URL"], os.environ["TAGRELAY_SECRET"], sys.argv[1]))
            return
        except urllib.error.HTTPError as error:
            reason = f"{error.code} {error.read().decode(errors='replace')}"
            is_final = error.code < 500 and error.code != 429
        except OSError as error:
            reason, is_final = str(error), False
        if is_final or pause is None:
            sys.exit(f"error: Tagrelay did not accept {sys.argv[1]}: {reason}")
        print(f"{reason}; trying again in {pause} s", file=sys.stderr)
        time.sleep(pause)


if __name__ == "__main__":
    main()
