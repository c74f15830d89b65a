"""The machinery of the benchmarks: environments, contenders, processes, rounds and tables."""
