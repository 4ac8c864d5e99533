"""`keyturn demo`: the whole of Keyturn once, on free ports and in a folder of its own, proved as it goes.

The demo only uses what a user has: the commands, the REST interface and the files that ship. It looks into the
database only to fill its table and to check what it says.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Run the demo and return its exit code: 0 when all it shows holds, 1 when not, 2 usage, 130 interrupted."""
    from orchestrator.cli.demo.run import run

    return run(arguments)
