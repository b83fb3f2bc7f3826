"""Training a supernet: what is checked before, the loop, what a resumed run needs."""
