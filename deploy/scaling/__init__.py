"""How many shards a stream should have: the decision, traffic to try it on, and a simulator."""
