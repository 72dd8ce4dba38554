"""A real server is broken again and again under load, and what its callers got is counted."""
