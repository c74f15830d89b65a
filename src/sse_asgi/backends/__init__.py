"""What carries and keeps events: the contract, and its implementations."""
