"""What the benchmarks share: files, provenance."""
