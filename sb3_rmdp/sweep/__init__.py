"""
Sweeps: grids of environments, budgets, algorithms and seeds, trained on Ray and evaluated into one CSV file.

Importing this package does not need Ray (``pip install "sb3_rmdp[sweep]"``); running a sweep does.
"""
