"""The very same scheduler on a virtual clock: what a policy would do to a workload on a machine
whose steps cost what a table says. Imports no torch.
"""
