"""The workflows Keyturn ships, one per file, named in `langgraph.json`.

They import `orchestrator.sdk` and LangGraph, nothing else of Keyturn.
"""
