#!/usr/bin/env python3
"""Announces an image to Tagrelay's receiver of the kind `generic`, for registries without webhooks.

    TAGRELAY_URL=https://tagrelay.example.com/webhooks/ci TAGRELAY_SECRET=… python3 notify.py IMAGE:TAG[@DIGEST]

TAGRELAY_ID_TOKEN, a token that the CI system signs for the job, replaces TAGRELAY_SECRET. Both are read from the environment,
because other processes can read arguments. Needs Python 3.8 and no packages. A failed
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


def send(url, body):
    headers = {"Content-Type": "application/json"}
    if os.environ.get("TAGRELAY_ID_TOKEN"):
        headers["Authorization"] = f"Bearer {os.environ['TAGRELAY_ID_TOKEN']}"
    else:
        signature = hmac.new(os.environ["TAGRELAY_SECRET"].encode(), body, hashlib.sha256).hexdigest()
        headers["X-Tagrelay-Signature"] = f"sha256={signature}"
    # The trace of the pipeline, if it has one.
    if os.environ.get("TRACEPARENT"):
        headers["traceparent"] = os.environ["TRACEPARENT"]
    request = urllib.request.Request(url, body, headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if not os.environ.get("TAGRELAY_URL"):
        sys.exit("error: TAGRELAY_URL must be set")
    if not os.environ.get("TAGRELAY_SECRET") and not os.environ.get("TAGRELAY_ID_TOKEN"):
        sys.exit("error: TAGRELAY_SECRET or TAGRELAY_ID_TOKEN must be set")
    # The time prevents that a recorded request is sent again later.
    sent_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    body = json.dumps({"image": sys.argv[1], "sent_at": sent_at}).encode()
    for pause in [*PAUSES, None]:
        try:
            print(send(os.environ["TAGRELAY_URL"], body))
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
