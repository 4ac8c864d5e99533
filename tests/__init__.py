"""Tests of Keyturn, named for the promises they prove."""
