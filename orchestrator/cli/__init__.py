"""The `keyturn` command. It speaks REST through the SDK's client; only the commands that run processes do more."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """The entry point of the `keyturn` command."""
    from orchestrator.cli.app import run

    run()
