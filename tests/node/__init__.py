"""The npm clients that people already have, run by Node against a served Keyturn."""
