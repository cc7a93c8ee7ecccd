"""Other ways to do the job. Each does all of it, and is checked to, but for what its docstring says.

They run on a Python of their own (`peers.lock`), as processes that `given.py` tells what to do.
"""
