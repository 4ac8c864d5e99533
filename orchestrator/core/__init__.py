"""The pure core: frozen values and functions over them, with no database, clock, network or framework.

Everything that is a decision lives here, so it can be tested by tables and properties.
"""
