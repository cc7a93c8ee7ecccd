"""The arrows: tables, the one function in Python, and the job that joins them."""
