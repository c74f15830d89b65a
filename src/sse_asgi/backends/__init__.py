"""Backends carry and keep the events of hubs: the contract, the memory backend, and the Redis backend."""
