"""Quota: the operator's hands on the ledger: how a subject stands, another limit, a reset, a block."""
