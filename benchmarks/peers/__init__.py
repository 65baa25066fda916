"""The other servers, each behind the engine's messages, in the benchmark's own environment.

``with_*`` is the process that the client starts: it starts the server, hands it each row in the
server's own way, and ends it. Serial diffusers and a thread a request are in the package
(``calotype.engine.plain_server``), which ``calotype bench engine`` measures without this folder.
"""
