"""Use cases. Only these (and the engine) open transactions; they judge with the pure core and write with the store."""
