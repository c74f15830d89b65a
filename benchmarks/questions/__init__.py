"""What the benchmarks ask: one question a file, each with `run(setting)`."""
