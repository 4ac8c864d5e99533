"""The shop's graphs."""
