"""All SQL of Keyturn, one module per aggregate; functions take the caller's connection and open no transaction.

Lock order, everywhere: the workflow's row, then its approvals by id, then votes. Whoever follows it cannot deadlock.
"""
