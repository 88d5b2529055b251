"""The context switch: recorded or synthetic workloads, what a kernel saves and restores in them, and what that costs.

A `Workload` is a list of events as columns (`workload`), read from a trace (`traces`). Policies say what a kernel does
at each; measurements of this CPU are `measure`'s. Nothing here prints or draws.
"""
