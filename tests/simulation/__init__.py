"""A seeded simulation of the protocol in virtual time: the real Store with its scripts, Claimer, Beats, Reaper, tell,
sweep and recover, on fakeredis; what is simulated is the hosts, the links, the clocks and the people.

    python -m tests.simulation --seed 7          one seed, step by step; it fails again exactly as it failed
    python -m tests.simulation --seconds 3600    seeds for an hour, each another
    python -m tests.simulation --mutants         every planted bug, and the seed that finds it
"""
