"""The doors to the outside: Kinesis, the lake, Redis, MySQL, and whoever knows where addresses are."""
