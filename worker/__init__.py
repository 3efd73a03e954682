"""Tatin's host side: capacity, leases, sandboxes, agents, gateway, collecting."""
