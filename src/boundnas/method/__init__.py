"""The method: one step of sandwich sampling with boundaries that learn (Algorithm 1)."""
