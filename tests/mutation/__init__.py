"""Every small change of consensus/ and health/ should fail a test; `python -m tests.mutation` counts those that do."""
