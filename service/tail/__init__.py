"""Tail: what an operator sees of exchanges, live, as they end."""
