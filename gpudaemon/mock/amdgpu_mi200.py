"""amdgpu's files of one die of an Instinct MI250X (gc 9.4.2, Aldebaran), as Linux 6.12 shows them.

A module is two GPUs to the kernel. Power belongs to the module and only its first die knows it: the second has
no power1_average, a cap of 0, and zeros for power and energy in its table (pm/swsmu/smu13/aldebaran_ppt.c,
aldebaran_is_primary). pcie_bw is there, and a read of it sleeps a second (amdgpu/soc15.c,
soc15_get_pcie_usage); the energy accumulator counts 2^-16 J. Besides: pm/amdgpu_pm.c, default_attr_update and
hwmon_attributes_visible: a fan is not there, vddgfx is.
"""

from gpudaemon.mock.amdgpu import Card, add_clocks, add_common, add_hwmon, add_ras
from gpudaemon.mock.gpu_metrics import metrics_aldebaran
from gpudaemon.mock.physics import State
from gpudaemon.mock.show import shown
from gpudaemon.mock.tree import Tree

__all__ = ["add_mi250x"]

_FIRMWARE = {
    "mec": 0x4E,
    "mec2": 0x4E,
    "rlc": 0x1F,
    "sdma": 0x8,
    "sdma2": 0x8,
    "sos": 0x27008E,
    "smc": 0x445A00,
    "vcn": 0x110101B,
    "ta_ras": 0x1B,
    "ta_xgmi": 0x20000A0E,
}
_PACKET = 256  # bytes, the maximum payload of the link


def _identity(card: Card, hops: tuple[int, ...]) -> dict[str, str]:
    module = card.index // 2
    printed = "".join(f"{number:02x} " for number in hops)
    return {
        "mem_info_vram_vendor": "samsung",
        "unique_id": f"{0x1D2C53A0B1E00000 + 0x9E3779B1 * (card.index + 1):016x}",
        "vbios_version": "113-D65209-073",
        "board_info": "type : oam",
        "product_name": "AMD INSTINCT MI250X (MCM) OAM AC MBA",
        "product_number": "102-D65209-00",
        "serial_number": str(692_251_000_401 + module),
        "xgmi_device_id": str(0x2C3D_0000_0000 + card.index),
        "xgmi_physical_id": str(card.index),
        "xgmi_num_hops": printed,
        "xgmi_num_links": printed,
    }


def _traffic(state: State) -> bytes:
    # "%llu %llu %i": received and sent packets of the last second, and the payload (amdgpu_pm.c).
    return b"%d %d %d\n" % (state.inbound / _PACKET, state.outbound / _PACKET, _PACKET)


def add_mi250x(tree: Tree, card: Card, hops: tuple[int, ...], *, primary: bool) -> None:
    """One die. hops: to each GPU of the hive, 0 for itself; primary: the die that knows the module's power."""
    path, gpu = card.function.path, card.gpu
    add_common(tree, card, _identity(card, hops), _FIRMWARE)
    add_clocks(
        tree,
        card,
        mclk=((400, 700, 1200, 1600), 1200),
        socclk=((666, 857, 1000, 1090), 424),
        fclk=((1200, 1600), 400),
        vclk=((914, 1333), 0),
        dclk=((711, 1000), 0),
    )
    tree.file(f"{path}/xgmi_error", b"0\n")
    tree.file(f"{path}/pcie_bw", generate=lambda t: _traffic(gpu.at(t)), delay=1.0)
    tree.file(
        f"{path}/gpu_metrics",
        generate=lambda t: metrics_aldebaran(gpu.at(t), tree.clock.boottime(t), primary=primary),
    )
    chip = add_hwmon(tree, card, {"edge": 100, "junction": 110, "mem": 94}, capped=primary)
    if primary:
        tree.file(f"{chip}/power1_average", generate=shown(gpu, lambda now: 1e6 * now.power, 1_000_000))
    tree.file(f"{chip}/freq2_input", generate=shown(gpu, lambda now: now.memory_clock, end=b"000000\n"))
    tree.file(f"{chip}/in0_input", generate=shown(gpu, lambda now: 1000 * now.volts))
    tree.text(chip, in0_label="vddgfx")
    add_ras(tree, gpu, f"{path}/ras")
