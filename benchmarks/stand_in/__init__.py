"""An experiment on both layers of safety: a harmless thing stands in for what is forbidden.

The embedded model draws lighthouses, reliably. So an operator forbids lighthouses by the product's
own means (a list of words, a policy, a picture check of ``calotype safety train``), and the attacks
of ``calotype safety attack``, and one that is told what both checks say, try to get one all the
same. ``python -m benchmarks.stand_in``; figures and limits are in docs/safety.md.
"""
