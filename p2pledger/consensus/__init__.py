"""The agreement protocol of docs/protocol.md as a pure state machine: events in, effects out."""
