"""What one part costs by itself: `python -m bench.micro minimal|ten|health|shares|release`, each with its own options.

`minimal`, `ten`, `health`: a validator's own work on blocks of such transactions. `shares`: the arithmetic of keys in
shares. `release`: a released record from the request to the plain bytes, against its bounds.
"""
