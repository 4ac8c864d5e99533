"""Background jobs that may be late but never lost, run by Procrastinate, and the channels they speak to.

Nothing here decides about a workflow.
"""
