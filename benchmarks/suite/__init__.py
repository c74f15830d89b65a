"""How the benchmarks run: environments, contenders, processes, rounds, tables."""
