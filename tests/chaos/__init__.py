"""Faults made on purpose while events flow, and the audit as their judge."""
