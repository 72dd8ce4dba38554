"""Other programs' HTTP interfaces onto the same engine, each off unless it is asked for."""
