"""The order of things: admit, dispatch, finish. The only room that knows every other room.

It makes no rules of its own: limits are core's, choices are policy's, judgements are safety's.
"""
