"""The reward service: one HTTP server that hosts rewards, batches, survives, and can be operated.

The way of a request: `application` takes its headers apart and asks `credentials`; `body` receives
it into a reused buffer; `reading` decodes it and checks what it holds; `orders` hands its samples
to the `hosted` rewards, each of which has a `batching` queue and replicas; the outcomes come back
in the order of the request. All state belongs to one event loop, so there are no locks; scoring
runs on threads and in worker processes.
"""

from guerdon.server.configuration import ServerConfig, load

__all__ = ["ServerConfig", "load"]
