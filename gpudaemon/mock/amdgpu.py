"""amdgpu's own files: what drivers/gpu/drm/amd shows of a card below its PCI device, as of Linux 6.12.

Which files a card has follows default_attr_update and pp_dpm_clk_default_attr_update (pm/amdgpu_pm.c) and
hwmon_attributes_visible there; formats of clock levels pm/swsmu/smu13/smu_v13_0_6_ppt.c (MI300X) and
smu_v13_0_0_ppt.c (Navi 31). vcn_busy_percent exists for APUs only in that kernel, pp_dpm_pcie and pcie_bw are
hidden on MI300X, and its hwmon has neither an edge temperature, a voltage nor a fan.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gpudaemon.mock.gpu_metrics import metrics_v1_3, metrics_v1_6
from gpudaemon.mock.model import Gpu
from gpudaemon.mock.pci import Function, add_class_device, add_plain_power
from gpudaemon.mock.physics import State
from gpudaemon.mock.show import shown
from gpudaemon.mock.tree import Generate, Tree

__all__ = [
    "NAVI33",
    "Board",
    "Card",
    "add_clocks",
    "add_common",
    "add_consumer_card",
    "add_hwmon",
    "add_instinct",
    "add_nodes",
    "add_ras",
    "client_fdinfo",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One card.

    index: of cardN; render: of renderDN; hwmon: of hwmonN. gpu: what it does.
    """

    function: Function
    index: int
    render: int
    hwmon: int
    gpu: Gpu

    @property
    def cap(self) -> int:
        """Watts of the power cap."""
        return int(self.gpu.chip.cap)

    def clock(self, state: State) -> int:
        """Gfx clock, MHz, in steps of 5 as firmware averages it."""
        return int(state.clock) // 5 * 5

    def used(self, state: State) -> float:
        """Bytes of VRAM in use; the driver takes some of it for itself."""
        return self.gpu.chip.memory * (0.02 + 0.9 * state.filled)


def add_nodes(tree: Tree, path: str, card: int, render: int) -> None:
    """The primary and render node of a device (drivers/gpu/drm/drm_sysfs.c)."""
    for name, minor in ((f"card{card}", card), (f"renderD{render}", render)):
        uevent = f"DEVNAME=dri/{name}\nDEVTYPE=drm_minor\n"
        add_class_device(tree, f"{path}/drm/{name}", "drm", (226, minor), uevent)


def _levels(levels: tuple[int, ...], current: int) -> str:
    # smu_v13_0_6_print_clks: a blank also where there is no star.
    nearest = min(range(len(levels)), key=lambda index: abs(levels[index] - current))
    return "".join(f"{i}: {mhz}Mhz {'*' if i == nearest else ''}\n" for i, mhz in enumerate(levels))


def _fine_grained(card: Card) -> Generate:
    """Levels of a clock that runs at any frequency between two: the current one stands between them."""
    low, high = card.gpu.chip.low, card.gpu.chip.high

    def levels(seconds: float) -> bytes:
        now = card.clock(card.gpu.at(seconds))
        if abs(now - low) <= 25 or abs(now - high) <= 25:
            marks = ("*", "") if now - low < high - now else ("", "*")
            return f"0: {low}Mhz {marks[0]}\n1: {high}Mhz {marks[1]}\n".encode()
        return f"0: {low}Mhz\n1: {now}Mhz *\n2: {high}Mhz\n".encode()

    return levels


def add_common(tree: Tree, card: Card, static: Mapping[str, str], firmware: Mapping[str, int]) -> None:
    """What every discrete amdgpu card has: load, memory, DPM state, firmware versions, nodes."""
    path, gpu = card.function.path, card.gpu
    gtt = 16 * 2**30 if gpu.chip.memory < 2**36 else 2**39
    tree.file(f"{path}/gpu_busy_percent", generate=shown(gpu, lambda now: 100 * now.busy))
    tree.file(f"{path}/mem_busy_percent", generate=shown(gpu, lambda now: 100 * now.traffic))
    tree.file(f"{path}/mem_info_vram_used", generate=shown(gpu, card.used, 4096))
    tree.file(f"{path}/mem_info_vis_vram_used", generate=shown(gpu, card.used, 4096))
    tree.file(f"{path}/mem_info_gtt_used", generate=shown(gpu, lambda now: 2**26 * (1 + now.filled), 4096))
    tree.file(f"{path}/pcie_replay_count", generate=shown(gpu, lambda now: now.replays))
    tree.text(
        path,
        mem_info_vram_total=gpu.chip.memory,
        mem_info_vis_vram_total=gpu.chip.memory,
        mem_info_gtt_total=gtt,
        mem_info_preempt_used=0,
        pp_num_states="states: 1\n0 default",
        pp_cur_state=0,
        **static,
    )
    tree.text(
        path, 0o644, power_dpm_force_performance_level="auto", power_dpm_state="performance", pp_force_state=""
    )
    tree.file(
        f"{path}/thermal_throttling_logging",
        f"{card.function.address}: thermal throttling logging enabled, with interval 60 seconds\n",
        mode=0o644,
    )
    tree.text(
        f"{path}/fw_version", **{f"{name}_fw_version": f"0x{value:08x}" for name, value in firmware.items()}
    )
    add_nodes(tree, path, card.index, card.render)


_SENSORS: Mapping[str, tuple[int, Callable[[State], float]]] = {
    "edge": (1, lambda now: now.edge),
    "junction": (2, lambda now: now.hotspot),
    "mem": (3, lambda now: now.hbm),
}
"""label -> channel of temp<channel>_*, what it measures"""


def add_hwmon(tree: Tree, card: Card, critical: Mapping[str, int], *, capped: bool = True) -> str:
    """The hwmon chip without fan and voltage; returns its directory.

    critical: label -> °C. capped: knows the cap; else it says 0.
    """
    chip = f"{card.function.path}/hwmon/hwmon{card.hwmon}"
    add_class_device(tree, chip, "hwmon", None, "")
    tree.text(chip, name="amdgpu", power1_label="PPT", freq1_label="sclk", freq2_label="mclk")
    for label, limit in critical.items():
        channel, degrees = _SENSORS[label]
        tree.file(f"{chip}/temp{channel}_input", generate=_celsius(card.gpu, degrees))
        tree.text(
            chip,
            **{
                f"temp{channel}_label": label,
                f"temp{channel}_crit": limit * 1000,
                f"temp{channel}_crit_hyst": -273150,
                f"temp{channel}_emergency": (limit + 5) * 1000,
            },
        )
    micro = card.cap * 1_000_000 if capped else 0
    tree.text(chip, power1_cap_max=micro, power1_cap_min=0, power1_cap_default=micro)
    tree.file(f"{chip}/power1_cap", f"{micro}\n", mode=0o644)
    tree.file(f"{chip}/freq1_input", generate=shown(card.gpu, card.clock, end=b"000000\n"))
    return chip


def _celsius(gpu: Gpu, degrees: Callable[[State], float]) -> Generate:
    return shown(gpu, lambda now: 1000 * degrees(now), 1000)


_INSTINCT_FIRMWARE = {
    "mec": 0xB2,
    "rlc": 0x15,
    "sdma": 0x12,
    "sos": 0x36414E,
    "smc": 0x557300,
    "vcn": 0x1111002,
    "ta_ras": 0x1B,
}


def _instinct_identity(card: Card, hive: tuple[int, ...]) -> dict[str, str]:
    # The numbers of the hive are printed "%02x " each: a blank before the newline (amdgpu_xgmi.c).
    hops = "".join(f"{number:02x} " for number in hive)
    return {
        "mem_info_vram_vendor": "hynix",
        "unique_id": f"{0x6E2A91C0DE000000 + 0x9E3779B1 * (card.index + 1):016x}",
        "vbios_version": "113-M3000100-102",
        "board_info": "type : oam",
        "product_name": "AMD Instinct MI300X OAM",
        "product_number": "102-G30211-0C",
        "serial_number": str(692_345_000_101 + card.index),
        "fru_id": f"113-AMDG30211{card.index:04d}",
        "manufacturer": "AMD",
        "available_compute_partition": "SPX, DPX, QPX, CPX",
        "xgmi_device_id": str(0x1A2B_0000_0000 + card.index),
        "xgmi_physical_id": str(card.index),
        "xgmi_num_hops": hops,
        "xgmi_num_links": hops,
    }


def add_instinct(tree: Tree, card: Card, hive: tuple[int, ...]) -> None:
    """An MI300X (gc 9.4.3) with its RAS, partition and xGMI files.

    hive: hops to each GPU of the xGMI hive, 0 for itself.
    """
    path = card.function.path
    add_common(tree, card, _instinct_identity(card, hive), _INSTINCT_FIRMWARE)
    tree.text(path, 0o644, current_compute_partition="SPX", current_memory_partition="NPS1")
    tree.file(f"{path}/xgmi_error", b"0\n")
    tree.file(f"{path}/enforce_isolation", b"0\n", mode=0o644)
    add_clocks(
        tree,
        card,
        mclk=((900, 1100, 1200, 1300), 400),
        socclk=((800, 1000, 1143), 343),
        fclk=((1300, 1600, 2000, 2100), 800),
        vclk=((914, 1333), 0),
        dclk=((711, 1143), 0),
    )
    tree.file(
        f"{path}/gpu_metrics",
        generate=lambda t: metrics_v1_6(card.gpu.at(t), tree.clock.boottime(t), partitions=1),
    )
    chip = add_hwmon(tree, card, {"junction": 100, "mem": 105})
    tree.file(f"{chip}/power1_input", generate=shown(card.gpu, lambda now: 1e6 * now.power, 1_000_000))
    tree.file(f"{chip}/freq2_input", generate=shown(card.gpu, _memory_clock, end=b"000000\n"))
    add_ras(tree, card.gpu, f"{path}/ras")


def _memory_clock(state: State) -> float:
    return state.memory_clock


def add_clocks(tree: Tree, card: Card, **clocks: tuple[tuple[int, ...], int]) -> None:
    """The gfx clock and others: name -> (levels, MHz by which the load lifts it above the lowest)."""
    path = card.function.path
    tree.file(f"{path}/pp_dpm_sclk", generate=_fine_grained(card), mode=0o644)
    for name, (levels, span) in clocks.items():
        tree.file(f"{path}/pp_dpm_{name}", generate=_stepped(card, levels, span), mode=0o644)


def _stepped(card: Card, levels: tuple[int, ...], span: int) -> Generate:
    return lambda t: _levels(levels, int(levels[0] + span * card.gpu.at(t).busy)).encode()


def add_ras(tree: Tree, gpu: Gpu, ras: str) -> None:
    # amdgpu_ras.c: amdgpu_ras_sysfs_read, _features_read, _version_show, _schema_show, _event_state_show
    tree.text(ras, features="feature mask: 0x3fbffe7f", version="table version: 0x30000", schema="schema: 0x2")
    tree.file(f"{ras}/umc_err_count", generate=lambda t: _memory_errors(gpu.at(t)))
    for block in ("sdma", "gfx", "mmhub", "xgmi_wafl", "vcn", "jpeg"):
        tree.file(f"{ras}/{block}_err_count", b"ue: 0\nce: 0\n")
    tree.file(f"{ras}/gpu_vram_bad_pages", generate=lambda t: _bad_pages(gpu.at(t)))
    kinds = ("Fatal Error", "Poison Creation", "Poison Consumption")
    tree.file(
        f"{ras}/event_state",
        "current seqno: 0\n" + "".join(f"{kind}: count:0, last_seqno:0\n" for kind in kinds),
    )


def _memory_errors(state: State) -> bytes:
    return b"ue: %d\nce: %d\nde: %d\n" % (state.uncorrected, state.corrected, state.deferred)


def _bad_pages(state: State) -> bytes:
    # amdgpu_ras.c, amdgpu_ras_sysfs_badpages_read: page, size, flag; one page for each uncorrectable error.
    pages = range(min(state.uncorrected, 100))
    return b"".join(b"0x%08x : 0x%08x : R\n" % (0x1F400 + 0x111 * page, 0x1000) for page in pages)


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """What the consumer cards of one model have in common.

    mclk: levels, MHz. lanes: of PCIe. fan: most revolutions a minute. hot: °C critical of edge, junction and
    memory.
    """

    memory: str
    unique_id: str
    vbios: str
    kind: str
    firmware: Mapping[str, int]
    mclk: tuple[int, ...]
    lanes: int
    fan: int
    hot: tuple[int, int, int]


NAVI31 = Board(
    memory="hynix", unique_id="7f3c1a9e5b20d846", vbios="113-EXT86700-001", kind="cem",
    firmware={
        "me": 0x8E0, "pfp": 0x94E, "mec": 0x208, "rlc": 0x75, "sdma": 0x15, "smc": 0x4E7E00, "vcn": 0x711_0011,
    },
    mclk=(96, 456, 772, 1249), lanes=16, fan=3200, hot=(100, 110, 108),
)  # fmt: skip
NAVI33 = Board(
    memory="samsung", unique_id="4b81d07e2c9f6a35", vbios="113-BRT125778.001", kind="bga",
    firmware={
        "me": 0x8C3, "pfp": 0x932, "mec": 0x1F8, "rlc": 0x70, "sdma": 0x14, "smc": 0x523000, "vcn": 0x711_000E,
    },
    mclk=(96, 456, 772, 1124), lanes=8, fan=4900, hot=(100, 100, 105),
)  # fmt: skip


def add_consumer_card(tree: Tree, card: Card, board: Board = NAVI31, *, display: bool = True) -> None:
    """A Navi 3x card (gc 11.0): every temperature, a fan, display connectors, no RAS and no partitions.

    display: one is plugged in.
    """
    path = card.function.path
    add_common(
        tree,
        card,
        {
            "mem_info_vram_vendor": board.memory,
            "unique_id": board.unique_id,
            "vbios_version": board.vbios,
            "board_info": f"type : {board.kind}",
        },
        board.firmware,
    )
    add_clocks(
        tree,
        card,
        mclk=(board.mclk, board.mclk[-1] - 96),
        socclk=((500, 1500), 1000),
        fclk=((1500, 2000), 500),
        vclk=((60, 2400), 0),
        dclk=((60, 2000), 0),
    )
    tree.file(
        f"{path}/pp_dpm_pcie",
        "".join(
            f"{level}: {speed}GT/s, x{board.lanes} {clock}Mhz {star}\n"
            for level, speed, clock, star in ((0, 2.5, 100, ""), (1, 8.0, 619, ""), (2, 16.0, 619, "*"))
        ),
        mode=0o644,
    )
    tree.file(
        f"{path}/gpu_metrics",
        generate=lambda t: metrics_v1_3(
            card.gpu.at(t),
            tree.clock.boottime(t),
            fan=board.fan,
            lanes=board.lanes,
        ),
    )
    chip = add_hwmon(
        tree,
        card,
        dict(zip(("edge", "junction", "mem"), board.hot, strict=True)),
    )
    tree.file(f"{chip}/power1_average", generate=shown(card.gpu, lambda now: 1e6 * now.power, 1_000_000))
    tree.file(f"{chip}/freq2_input", generate=shown(card.gpu, _memory_clock, end=b"000000\n"))
    _add_fan(tree, card, chip, board.fan)
    _add_connectors(tree, card, display)


def _add_fan(tree: Tree, card: Card, chip: str, fastest: int) -> None:
    """Voltage and fan of the hwmon chip."""
    tree.file(f"{chip}/in0_input", generate=shown(card.gpu, lambda now: 1000 * now.volts))
    tree.text(chip, in0_label="vddgfx", pwm1_min=0, pwm1_max=255, fan1_min=0, fan1_max=fastest)
    tree.text(chip, 0o644, pwm1_enable=2, fan1_enable=0)
    tree.file(f"{chip}/fan1_input", generate=shown(card.gpu, lambda now: fastest * now.fan))
    tree.file(f"{chip}/fan1_target", generate=shown(card.gpu, lambda now: fastest * now.fan), mode=0o644)
    tree.file(f"{chip}/pwm1", generate=shown(card.gpu, lambda now: 255 * now.fan), mode=0o644)


def _add_connectors(tree: Tree, card: Card, display: bool) -> None:
    # Reading `status` probes the display: present, so that a test sees whether anybody does.
    for number, (kind, connected) in enumerate(
        (("DP-1", display), ("DP-2", False), ("HDMI-A-1", False)), start=1
    ):
        path = f"{card.function.path}/drm/card{card.index}/card{card.index}-{kind}"
        tree.text(path, enabled="enabled" if connected else "disabled", dpms="On" if connected else "Off")
        tree.file(f"{path}/status", b"connected\n" if connected else b"disconnected\n", mode=0o644)
        tree.file(f"{path}/modes", b"3840x2160\n2560x1440\n1920x1080\n" if connected else b"")
        tree.file(f"{path}/connector_id", f"{90 + number}\n")
        tree.file(f"{path}/uevent", b"DEVTYPE=drm_connector\n", mode=0o644)
        tree.link(f"{path}/device", path.rsplit("/", 1)[0])
        tree.link(f"{path}/subsystem", "sys/class/drm")
        tree.link(f"sys/class/drm/card{card.index}-{kind}", path)
        add_plain_power(tree, path)


def client_fdinfo(card: Card, client: int, share: float) -> Generate:
    """fdinfo of a client of `card` that uses `share` of its engines (amdgpu_fdinfo.c, amdgpu_show_fdinfo)."""

    def content(seconds: float) -> bytes:
        state = card.gpu.at(seconds)
        vram = int(card.used(state) * share) // 1024
        return (
            f"pos:\t0\nflags:\t02100002\nmnt_id:\t27\nino:\t{500 + card.render}\n"
            f"drm-driver:\tamdgpu\ndrm-client-id:\t{client}\ndrm-pdev:\t{card.function.address}\n"
            f"pasid:\t{32768 + client}\n"
            f"drm-memory-vram:\t{vram} KiB\ndrm-memory-gtt: \t2048 KiB\ndrm-memory-cpu: \t0 KiB\n"
            f"amd-memory-visible-vram:\t{vram} KiB\namd-evicted-vram:\t0 KiB\n"
            f"amd-evicted-visible-vram:\t0 KiB\namd-requested-vram:\t{vram} KiB\n"
            f"amd-requested-visible-vram:\t0 KiB\namd-requested-gtt:\t2048 KiB\n"
            f"drm-shared-vram:\t0 KiB\ndrm-shared-gtt:\t0 KiB\ndrm-shared-cpu:\t0 KiB\n"
            f"drm-engine-gfx:\t{int(state.worked * share * 1e9)} ns\n"
            f"drm-engine-compute:\t{int(state.worked * share * 0.5e9)} ns\n"
        ).encode()

    return content
