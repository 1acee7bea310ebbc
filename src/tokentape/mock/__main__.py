"""The process of a mock server: settings come as one line of JSON on stdin, its address goes to stdout; it ends with
stdin.

At the end the log goes to stdout, a line a row.
"""

from __future__ import annotations

import gc
import json
import signal
import sys

from tokentape.errors import UsageError
from tokentape.mock.serving import loop_of
from tokentape.mock.settings import Settings


def main() -> int:
    """Serve; returns the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it stops it
    settings = Settings.from_json(json.loads(sys.stdin.buffer.readline()))
    try:
        loop, url = loop_of(settings)
    except UsageError as error:
        print(json.dumps({"what": error.what, "why": error.why, "fix": error.fix}), flush=True)
        return 1
    loop.also_watch(sys.stdin.buffer)
    print(json.dumps({"url": url}), flush=True)
    gc.collect()
    gc.freeze()
    gc.disable()  # a collection is a pause of its own in somebody's schedule
    loop.run()
    for line in loop.log.lines():
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
