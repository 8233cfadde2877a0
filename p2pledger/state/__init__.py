"""The replicated state: ordered keys and values, an overlay above the store, and the authenticated tree."""
