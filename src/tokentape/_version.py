"""The version, in one place: the package, its metadata and the tapes it writes all read it here."""

__version__ = "0.1.0"
