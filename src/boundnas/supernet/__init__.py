"""Supernets: models whose forward takes an architecture, and what is computed from one."""
