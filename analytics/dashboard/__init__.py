"""The dashboard: a lake summed up small enough to travel in one page, and the page."""
