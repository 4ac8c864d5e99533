"""The operation graph: the shipped runbooks, and steps that were cut short."""
