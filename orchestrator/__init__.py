"""Keyturn: a workflow engine for automations that must not act alone.

This package is the engine, its store and its edges. Nothing may be re-exported from here: graph authors import
`orchestrator.sdk`, everything else is internal.
"""

import os

# LangGraph reads this when it is first imported. Off, a forged checkpoint row could run code while it is decoded.
os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"
