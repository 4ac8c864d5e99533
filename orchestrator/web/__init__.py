"""The HTTP edge: requests in, problems and wire models out.

What may be done, and by whom, is decided in the service; no statement and no rule may live here.
"""
