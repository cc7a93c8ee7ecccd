"""What brings the platform to AWS."""
