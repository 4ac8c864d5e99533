"""What Keyturn costs beside LangGraph driven by hand, measured in one run on one Postgres: `python -m benchmarks`."""
