"""The Object Store API for trio, usable without the rest of natsfs.

`base` is the API, `model` its values; `jetstream` and `memory` implement it.  `wire`, `protocol`
and `streams` are the pure parts: the Object Store's own formats, NATS and JetStream messages, and
stream configurations; `buffers` has the memory that payloads are received into.  Only `session` and
`link` touch sockets.
"""
