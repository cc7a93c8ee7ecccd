"""The functions that AWS Lambda runs: what it hands them, made into calls of the packages."""
