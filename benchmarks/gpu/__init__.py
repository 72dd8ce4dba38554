"""Full-size models of random weights on one device: each way to batch, beside a bare loop."""
