"""Several processes with one engine each: shared memory and total throughput."""
