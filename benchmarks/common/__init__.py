"""What the benchmarks share: files, tables, options, pages with generated blocks, where a number comes from."""
