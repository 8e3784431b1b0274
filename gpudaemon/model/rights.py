"""The tiers of rights and the capabilities in them, as capabilities(7) names and numbers them."""

__all__ = ["NUMBERS", "TIERS"]

TIERS: dict[str, tuple[str, ...]] = {
    "base": (),
    "processes": ("CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"),
    "tracing": ("CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_DAC_OVERRIDE", "CAP_PERFMON"),
    "full": (
        "CAP_SYS_PTRACE",
        "CAP_DAC_READ_SEARCH",
        "CAP_DAC_OVERRIDE",
        "CAP_PERFMON",
        "CAP_SYS_ADMIN",
        "CAP_NET_ADMIN",
        "CAP_SYSLOG",
    ),
}
"""Capabilities of the reader, by tier, from the least rights to the most."""

NUMBERS = {
    "CAP_DAC_OVERRIDE": 1,
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_SYSLOG": 34,
    "CAP_PERFMON": 38,
}
"""Bit of each in a capability set (include/uapi/linux/capability.h)."""
