"""The words that hubs and backends share: events, positions, entries, names."""
