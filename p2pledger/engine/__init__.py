"""One node's whole logic without I/O: replica, mempool, dissemination, sync and execution put together."""
