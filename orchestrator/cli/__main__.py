"""`python -m orchestrator.cli`, for where the `keyturn` script is not on the path."""

from __future__ import annotations

from orchestrator.cli import main

if __name__ == "__main__":
    main()
