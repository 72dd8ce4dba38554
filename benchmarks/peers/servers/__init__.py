"""The peers: each is a module that serves until it is ended by a signal."""
