"""How long networks take on a device: measured block by block, predicted for every one of them."""
