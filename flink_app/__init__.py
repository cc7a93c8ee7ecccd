"""The arrows: tables, the one vectorised function, and the job that joins them."""
