"""Comparisons that need more than the package: other servers, a wide model, a plot.

They add systems to ``calotype bench engine`` and measure nothing themselves: workload, client and
figures are those of ``calotype.cli.bench_*``. Not part of the package; run from a checkout.
"""
