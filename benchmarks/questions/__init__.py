"""The questions of the benchmarks: one in each file, with a function `run(setting)`."""
