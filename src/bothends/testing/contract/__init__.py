"""The contract suite that every engine passes. Subclass `EngineContract`; see its docstring."""

from bothends.testing.contract.suite import EngineContract

__all__ = ["EngineContract"]
