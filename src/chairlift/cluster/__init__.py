"""Past one machine: replicas of the engine in a cluster. Importing this needs no Ray."""
