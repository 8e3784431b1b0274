"""What is true of a mock GPU, in base units: what every exporter may say of it, whatever file it read.

Drivers round: to whole percents, degrees, watts, to steps of a clock. A value that was served is right if it is
within the driver's step below some value that was true between its age ago and now.
"""

from collections.abc import Iterable, Mapping

from gpudaemon.mock.physics import Chip, State

__all__ = ["ranges", "truth"]


def truth(chip: Chip, state: State) -> Mapping[str, float]:
    """name -> value: ratios 0 to 1, Hz, watts, joules, °C, bytes, seconds, counts."""
    return {
        "busy_ratio": state.busy,
        "memory_busy_ratio": state.traffic,
        "media_busy_ratio": state.media,
        "clock_hertz": 1e6 * state.clock,
        "memory_clock_hertz": 1e6 * state.memory_clock,
        "power_watts": state.power,
        "average_power_watts": state.slow_power,
        "power_cap_watts": chip.cap,
        "voltage_volts": state.volts,
        "fan_ratio": state.fan,
        "edge_celsius": state.edge,
        "hotspot_celsius": state.hotspot,
        "memory_celsius": state.hbm,
        "regulator_celsius": state.regulator,
        "memory_bytes": chip.memory,
        "memory_filled_ratio": state.filled,
        "power_throttled": state.ppt,
        "thermal_throttled": state.thermal,
        "energy_joules": state.energy,
        "driver_energy_joules": state.driver_energy,
        "busy_seconds": state.worked,
        "idle_seconds": state.idle_seconds,
        "pcie_received_bytes": state.received,
        "pcie_sent_bytes": state.sent,
        "fabric_read_bytes": state.fabric_read,
        "fabric_written_bytes": state.fabric_written,
        "pcie_recoveries": state.recoveries,
        "pcie_replays": state.replays,
        "memory_errors_corrected": state.corrected,
        "memory_errors_uncorrected": state.uncorrected,
        "memory_errors_deferred": state.deferred,
        "aer_corrected": state.aer_corrected,
        "aer_nonfatal": state.aer_nonfatal,
        "aer_fatal": state.aer_fatal,
        "resets": state.resets,
        "asleep": state.asleep,
    }


def ranges(chip: Chip, states: Iterable[State]) -> dict[str, tuple[float, float]]:
    """name -> the lowest and the highest value among these states; empty where there is none."""
    found: dict[str, tuple[float, float]] = {}
    for state in states:
        for name, value in truth(chip, state).items():
            low, high = found.get(name, (value, value))
            found[name] = (min(low, value), max(high, value))
    return found
