"""LangGraph's side: graphs are loaded, run for one segment, paused and resumed here, and their checkpoints kept.

Only this package and `sdk` import LangGraph. It opens transactions, each guarded by the lease.
"""
