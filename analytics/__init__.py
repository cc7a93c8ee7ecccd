"""What is asked of the lake: SQL for Athena and Redshift, the same on a laptop, and the flatten job."""
