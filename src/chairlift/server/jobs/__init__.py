"""Jobs: requests that outlive their connection, and the server."""
