"""One side of the model as a child process: operations come in as lines of JSON, results go out.

    python -m tests.model.runner DIRECTORY

A process of its own, because a call that the mount never answers must not stop the tests.
"""

from __future__ import annotations

import json
import sys

from tests.model.actions import Actor


def main(directory: str) -> None:
    """Serve until standard input ends."""
    actor = Actor(directory)
    for line in sys.stdin:
        actor.since_ns, (name, *arguments) = json.loads(line)
        print(json.dumps(actor.act(name, arguments)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
