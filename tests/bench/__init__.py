"""Measurements. No test asserts a time; `make bench` prints what this machine does today."""
