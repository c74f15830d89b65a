"""The vocabulary that hubs and backends share: events, entries, positions, reserved names."""
