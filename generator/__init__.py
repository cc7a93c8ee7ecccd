"""Seeded shoppers, what can go wrong with their events, and the ways to publish them."""
