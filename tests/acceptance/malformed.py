"""The refusal of a scenario file that cannot be played."""

from __future__ import annotations


class MalformedError(Exception):
    """What is wrong with a scenario file, and where: `file: scenario, step: why`."""
