"""Files and lines whose content names one specimen: serial numbers, unique ids, addresses of interfaces.

What leaves a host in a capture must not name it. A pattern is matched against the end of a path, component by
component, with `fnmatch` wildcards; a form says how the content is spelled, because two files may spell one
number differently (amdgpu prints a GPU's unique id in hexadecimal, KFD the same in decimal).
"""

import enum
import re
from fnmatch import fnmatchcase

__all__ = ["FIELDS", "LINES", "PATTERNS", "Form", "form_of"]


class Form(enum.Enum):
    """How an identifier is spelled."""

    HEX = "hex"
    """hexadecimal digits, perhaps with `0x` in front or `:` `-` `_` between them"""
    DECIMAL = "decimal"
    """a number"""
    TEXT = "text"
    """letters and digits; hexadecimal where it begins with `0x`"""


FIELDS: tuple[tuple[str, Form, str], ...] = (
    ("unique_id", Form.HEX, "amdgpu_pm.c, amdgpu_get_unique_id: %016llx"),
    ("serial_number", Form.TEXT, "amdgpu_fru_eeprom.c; hwmon and power_supply sysfs ABI"),
    ("fru_id", Form.TEXT, "amdgpu_fru_eeprom.c"),
    ("xgmi_device_id", Form.DECIMAL, "amdgpu_xgmi.c: %llu"),
    ("xgmi_hive_id", Form.DECIMAL, "amdgpu_xgmi.c: %llu"),
    ("serial", Form.TEXT, "drivers/nvme/host/sysfs.c; drivers/cxl/core/memdev.c: %#llx"),
    ("nguid", Form.HEX, "drivers/nvme/host/sysfs.c: %pU"),
    ("uuid", Form.HEX, "drivers/nvme/host/sysfs.c, drivers/cxl/core/region.c: %pU"),
    ("eui", Form.HEX, "drivers/nvme/host/sysfs.c: %8ph"),
    ("wwid", Form.TEXT, "drivers/nvme/host/sysfs.c"),
    ("subsysnqn", Form.TEXT, "drivers/nvme/host/sysfs.c"),
    ("hostnqn", Form.TEXT, "drivers/nvme/host/sysfs.c"),
    ("hostid", Form.HEX, "drivers/nvme/host/sysfs.c"),
    ("node_guid", Form.HEX, "drivers/infiniband/core/sysfs.c: four groups of %04x"),
    ("sys_image_guid", Form.HEX, "drivers/infiniband/core/sysfs.c"),
    ("node_desc", Form.TEXT, "drivers/infiniband/core/sysfs.c: mostly the host's name"),
    ("gids/*", Form.HEX, "drivers/infiniband/core/sysfs.c: eight groups of %04x"),
    ("net/*/address", Form.HEX, "net/core/net-sysfs.c: %*phC"),
    ("phys_port_id", Form.HEX, "net/core/net-sysfs.c"),
    ("phys_switch_id", Form.HEX, "net/core/net-sysfs.c"),
    ("*_serial", Form.TEXT, "drivers/firmware/dmi-id.c"),
    ("product_uuid", Form.HEX, "drivers/firmware/dmi-id.c"),
    ("sys/kernel/random/boot_id", Form.HEX, "drivers/char/random.c"),
    ("sys/kernel/hostname", Form.TEXT, "kernel/utsname_sysctl.c"),
)

LINES: tuple[tuple[re.Pattern[str], Form], ...] = (
    # KFD: amdkfd/kfd_topology.c, node_show: `unique_id 17…`, `hive_id 4…`
    (re.compile(r"^(?:unique_id|hive_id) (\d+)$", re.MULTILINE), Form.DECIMAL),
    # nvidia: nv-procfs.c, `GPU UUID: GPU-…`; `Serial Number`, as nvidia and amdgpu tools write it
    (
        re.compile(r"^\s*serial(?: number| no\.?)?\s*[:=]\s*(\S.*?)\s*$", re.MULTILINE | re.IGNORECASE),
        Form.TEXT,
    ),
    # kobject_uevent of power supplies, NVMe and block devices
    (re.compile(r"^(?:E: )?(?:\w*_)?SERIAL(?:_NUMBER|_SHORT)?=(.+)$", re.MULTILINE), Form.TEXT),
    # label values of pages: gpudaemon_gpu_info and what resembles it
    (re.compile(r'[{,](?:\w*_)?(?:serial|serial_number|wwid|nqn)="([^"]+)"'), Form.TEXT),
    (re.compile(r'[{,](?:\w*_)?unique_id="([0-9a-fA-F]+)"'), Form.HEX),
)
"""What an identifier looks like within a line of text."""

PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("uuid", re.compile(r"[0-9a-fA-F]{8}([-_])(?:[0-9a-fA-F]{4}\1){3}[0-9a-fA-F]{12}(?![0-9a-fA-F])")),
    ("pci serial", re.compile(r"(?<![0-9a-fA-F-])(?:[0-9a-fA-F]{2}-){7}[0-9a-fA-F]{2}(?![0-9a-fA-F-])")),
    ("mac", re.compile(r"(?<![0-9a-fA-F:])(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}(?![0-9a-fA-F:])")),
    (
        "guid",
        re.compile(
            r"(?<![0-9a-fA-F:])[0-9a-fA-F]{4}(?::[0-9a-fA-F]{4}){3}(?:(?::[0-9a-fA-F]{4}){4})?(?![0-9a-fA-F:.])"
        ),
    ),
    ("container", re.compile(r"(?<![0-9a-fA-F])[0-9a-f]{64}(?![0-9a-fA-F])")),
    ("mac in a name", re.compile(r"(?<=\benx)[0-9a-f]{12}\b")),
)
"""What is an identifier wherever it stands: all of them hexadecimal."""


def form_of(path: str) -> Form | None:
    """The form of the identifier a file at `path` holds, None where it holds none."""
    parts = path.split("/")
    for pattern, form, _ in FIELDS:
        wanted = pattern.split("/")
        if len(parts) >= len(wanted) and all(
            fnmatchcase(part, want) for part, want in zip(parts[-len(wanted) :], wanted, strict=True)
        ):
            return form
    return None
