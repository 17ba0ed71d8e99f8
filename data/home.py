"""The house: rooms, devices, what can be done with each, and which combinations are held out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from data import chance

#: A room and the prepositions that may stand before it.
ROOMS: dict[str, tuple[str, ...]] = {
    "phòng khách": ("ở", "trong"),
    "phòng ngủ": ("ở", "trong"),
    "phòng bếp": ("ở", "trong"),
    "phòng ăn": ("ở", "trong"),
    "phòng tắm": ("ở", "trong"),
    "phòng làm việc": ("ở", "trong"),
    "phòng học": ("ở", "trong"),
    "phòng trẻ em": ("ở", "trong"),
    "phòng giặt": ("ở", "trong"),
    "nhà kho": ("ở", "trong"),
    "gara": ("ở", "trong"),
    "hành lang": ("ở", "ngoài"),
    "ban công": ("ở", "ngoài"),
    "sân thượng": ("ở", "trên"),
    "sân vườn": ("ở", "ngoài"),
}
_ALL = tuple(ROOMS)
_LIVING = ("phòng khách", "phòng ngủ", "phòng ăn", "phòng làm việc", "phòng học", "phòng trẻ em")
_INDOOR = (*_LIVING, "phòng bếp")
_WET = ("phòng tắm", "phòng bếp", "phòng giặt")

INVERSE = {"bật": "tắt", "mở": "đóng", "tăng": "giảm"}
INVERSE |= {after: before for before, after in INVERSE.items()}


@dataclass(frozen=True)
class Gauge:
    """Something about a device that has a level.

    Attributes:
        noun: its name; empty where the device itself is said to be "ở mức 2".
        level, step: how a level and a difference are written, with ``{n}``.
        values, steps: the levels and differences that are used.
        loose: (verb, tail) pairs that name the device and leave the noun out.
        more, less: how people say "more" and "less" without the noun.
    """

    noun: str
    level: str
    step: str
    values: tuple[int, ...]
    steps: tuple[int, ...]
    loose: tuple[tuple[str, str], ...]
    more: str
    less: str


@dataclass(frozen=True)
class Device:
    """A device, the rooms it stands in and what it can do.

    Attributes:
        start, stop: (verb, tail) pairs for the two actions of its switch; the first pair holds
            the canonical verb, "bật" and "tắt" or "mở" and "đóng".
        because: reasons to use it; they may open a request.
    """

    name: str
    rooms: tuple[str, ...]
    start: tuple[tuple[str, str], ...]
    stop: tuple[tuple[str, str], ...]
    because: tuple[str, ...]
    gauge: Gauge | None = None
    channels: tuple[int, ...] = ()


def _grades(more: str, less: str) -> Gauge:
    loose = (
        ("bật", "lên {level}"), ("đặt", "ở {level}"), ("chỉnh", "về {level}"),
        ("để", "ở {level}"), ("cho", "chạy {level}"),
    )  # fmt: skip
    return Gauge("", "mức {n}", "{n} mức", (1, 2, 3, 4, 5), (1, 2), loose, more, less)


_ON = (("bật", ""), ("mở", ""))
_OFF = (("tắt", ""), ("ngắt", ""))
_RUN = (("bật", ""), ("khởi động", ""), ("cho", "chạy"))
_HALT = (("tắt", ""), ("dừng", ""), ("cho", "nghỉ"))
_BRIGHTNESS = Gauge(
    "độ sáng", "{n}%", "{n}%", tuple(range(10, 101, 10)), (10, 20, 30),
    (("chỉnh", "sáng {level}"), ("để", "sáng {level}")), "sáng thêm", "dịu bớt",
)  # fmt: skip
_AIR = Gauge(
    "nhiệt độ", "{n} độ", "{n} độ", tuple(range(18, 31)), (1, 2, 3),
    (("bật", "ở {level}"), ("để", "{level}")), "ấm thêm", "mát thêm",
)  # fmt: skip
_WATER = Gauge(
    "nhiệt độ", "{n} độ", "{n} độ", tuple(range(40, 71, 5)), (5, 10),
    (("bật", "ở {level}"), ("để", "{level}")), "nóng thêm", "bớt nóng",
)  # fmt: skip
_VOLUME = Gauge(
    "âm lượng", "{n}%", "{n}%", tuple(range(10, 101, 10)), (5, 10, 20),
    (("để", "ở mức {level}"), ("mở", "ở mức {level}")), "to thêm", "nhỏ bớt",
)  # fmt: skip
_MOISTURE = Gauge(
    "độ ẩm", "{n}%", "{n}%", tuple(range(40, 71, 5)), (5, 10),
    (("để", "ở {level}"), ("bật", "ở {level}")), "ẩm thêm", "bớt ẩm",
)  # fmt: skip

DEVICES: dict[str, Device] = {
    device.name: device
    for device in (
        Device("đèn", _ALL, _ON, _OFF, ("Trời tối rồi", "Tối rồi"), _BRIGHTNESS),
        Device(
            "quạt", (*_INDOOR, "phòng giặt", "gara", "sân thượng"), _ON, _OFF,
            ("Nóng quá",), _grades("mạnh thêm", "nhẹ bớt"),
        ),
        Device("điều hòa", _INDOOR, _ON, _OFF, ("Nhà có khách", "Tôi về rồi"), _AIR),
        Device(
            "tivi", ("phòng khách", "phòng ngủ", "phòng ăn", "phòng bếp", "phòng làm việc"),
            _ON, _OFF, ("Tôi muốn xem tin", "Tôi muốn xem phim"), _VOLUME,
            tuple(range(1, 13)),
        ),
        Device(
            "loa", (*_INDOOR, "ban công", "sân vườn"), _ON, _OFF,
            ("Tôi muốn nghe nhạc", "Nhà có khách"), _VOLUME,
        ),
        Device(
            "máy lọc không khí", _INDOOR, _RUN, _HALT,
            ("Nhà bụi quá",), _grades("mạnh thêm", "nhẹ bớt"),
        ),
        Device(
            "máy sưởi", (*_LIVING, "phòng tắm"), _RUN, _HALT, ("Lạnh quá",),
            _grades("nóng thêm", "bớt nóng"),
        ),
        Device(
            "bình nóng lạnh", (*_WET, "sân thượng"), _ON, _OFF,
            ("Tôi sắp đi tắm",), _WATER,
        ),
        Device(
            "máy tạo ẩm", _LIVING, _RUN, _HALT, ("Không khí khô quá",), _MOISTURE,
        ),
        Device(
            "máy hút ẩm", ("nhà kho", "phòng giặt", "phòng làm việc", "phòng ngủ", "phòng học"),
            _RUN, _HALT, ("Trời nồm quá",),
        ),
        Device(
            "robot hút bụi", (*_INDOOR, "hành lang"), _RUN, _HALT,
            ("Nhà bụi quá",),
        ),
        Device(
            "máy giặt", ("phòng giặt", "phòng tắm", "ban công", "sân thượng"), _RUN, _HALT,
            ("Quần áo bẩn rồi",),
        ),
        Device(
            "camera", ("phòng khách", "gara", "hành lang", "ban công", "sân vườn", "nhà kho"),
            _ON, _OFF, ("Tôi sắp ra ngoài",),
        ),
        Device("ổ cắm", _ALL, _ON, _OFF, ("Tôi cần sạc điện thoại",)),
        Device(
            "rèm cửa", (*_INDOOR, "hành lang"), (("mở", ""), ("kéo", "ra"), ("vén", "lên")),
            (("đóng", ""), ("khép", ""), ("kéo", "lại")), ("Trời sáng rồi",),
        ),
        Device(
            "cửa sổ", (*_INDOOR, "phòng tắm", "phòng giặt"), (("mở", ""), ("mở", "ra")),
            (("đóng", ""), ("khép", ""), ("đóng", "lại")), ("Trời mát rồi",),
        ),
        Device(
            "mái che", ("ban công", "sân thượng", "sân vườn", "gara"),
            (("mở", ""), ("kéo", "ra")), (("đóng", ""), ("thu", "lại")), ("Nắng quá",),
        ),
    )
}  # fmt: skip

#: Things that people ask for and that this house does not have.
MISSING = (
    "máy chiếu", "máy pha cà phê", "máy chạy bộ", "lò nướng", "bể cá", "đàn điện", "máy in",
    "máy rửa bát", "máy ép hoa quả", "lò vi sóng", "nồi chiên", "máy xay sinh tố", "ghế mát xa",
    "máy khâu", "tủ rượu",
)  # fmt: skip


@dataclass(frozen=True)
class Combination:
    """One thing to do: ``Combination("quạt", "phòng ngủ", "đặt", 2)``.

    Attributes:
        action: bật, tắt, mở, đóng, đặt (to a level), chuyển (to a channel), tăng or giảm (by).
        level: the level, channel or difference; None for a switch.
    """

    device: str
    room: str
    action: str
    level: int | None = None

    @property
    def held_out(self) -> bool:
        """Whether it stays out of training; an action and its inverse share one fate."""
        if (self.device, self.room, self.action, self.level) == ("quạt", "phòng ngủ", "đặt", 2):
            return True
        action = min(self.action, INVERSE.get(self.action, self.action))
        return chance.number("split 1", self.device, self.room, action, self.level) % 100 < 12

    def inverse(self) -> Combination:
        """Return what undoes it; KeyError for đặt and chuyển, which have no inverse."""
        return dataclasses.replace(self, action=INVERSE[self.action])


def combinations() -> list[Combination]:
    """Return everything that can be done in the house."""
    found: list[Combination] = []
    for device in DEVICES.values():
        for room in device.rooms:
            found += [
                Combination(device.name, room, action)
                for action in (device.start[0][0], device.stop[0][0])
            ]
            found += [Combination(device.name, room, "chuyển", n) for n in device.channels]
            if device.gauge:
                found += [Combination(device.name, room, "đặt", n) for n in device.gauge.values]
                found += [
                    Combination(device.name, room, action, n)
                    for n in device.gauge.steps
                    for action in ("tăng", "giảm")
                ]
    return found


def missing_combinations() -> list[Combination]:
    """Return requests for things that the house does not have."""
    return [
        Combination(name, room, action)
        for name in MISSING
        for room in _INDOOR
        for action in ("bật", "tắt")
    ]
