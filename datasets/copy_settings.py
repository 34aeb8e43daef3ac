"""How alike two images are that count as copies."""

SIDE = 16  # of a hash: its lowest 16 x 16 frequencies
BITS = SIDE * SIDE
NEAR = 24  # bits by which copies differ at most, unless another number is asked for
