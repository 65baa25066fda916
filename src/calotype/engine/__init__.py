"""The only room with torch: models, samplers and the step loop, in a process of its own.

Three verbs: the batch policy *decides* which rows step next, the model *runs* once, the results
are *absorbed*. It knows nothing of tenants, of safety policy or of storage.
"""
