"""Ways of asking, and the one way of confirming."""

from __future__ import annotations

from dataclasses import dataclass

from data import chance
from data.home import DEVICES, ROOMS, Combination, Gauge

#: Around an order such as "bật quạt phòng ngủ lên mức 2"; the first leaves it as it is.
FRAMES = (
    "{}", "{} nhé", "{} đi", "{} ngay", "{} giúp tôi", "{} giúp tôi nhé", "{} hộ mình với",
    "hãy {}", "làm ơn {}", "vui lòng {}", "giúp tôi {}", "giúp tôi {} nhé", "nhờ bạn {}",
    "phiền bạn {}", "tôi muốn {}", "mình cần {}", "bạn {} giúp tôi với", "{} được không?",
    "bạn {} được không?", "bạn có thể {} không?", "giúp mình {} được không?", "bây giờ {} nhé",
    "xin hãy {}",
)  # fmt: skip
CALLS = ("bạn ơi, {} nhé", "à này, {} giúp mình", "trợ lý ơi, {}")
UNDO_FRAMES = (
    "làm ngược lại: {}", "hãy làm ngược lại: {}", "làm ngược lại giúp tôi: {}",
    "đảo ngược lệnh: {}", "làm điều ngược lại với lệnh {}", "tôi vừa nhờ {}, giờ làm ngược lại",
    "lệnh trước là {}, giờ làm ngược lại nhé", "hoàn tác lệnh {}", "hoàn tác giúp tôi: {}",
)  # fmt: skip
_PLACES = ("{room}", "{room}", "{at} {room}", "{at} {room}", "last", "first", "colon")


@dataclass(frozen=True)
class Wording:
    """An order without its room: verb, object, tail; "bật", "quạt", "lên mức 2"."""

    verb: str
    thing: str
    tail: str

    def text(self, place: str = "") -> str:
        """Return the order in lower case, with a place after the object if one is given."""
        return join(self.verb, self.thing, place, self.tail)


def join(*parts: str) -> str:
    """Join the parts that are not empty by single spaces."""
    return " ".join(part for part in parts if part)


def capital(text: str) -> str:
    """Make the first letter a capital."""
    return text[:1].upper() + text[1:]


def wordings(combination: Combination) -> list[Wording]:
    """Return the wordings of an order; the first is the canonical one."""
    device, action, level = combination.device, combination.action, combination.level
    known = DEVICES.get(device)
    pairs: tuple[tuple[str, str], ...]
    if known is None:
        pairs = (("bật", ""), ("mở", "")) if action == "bật" else (("tắt", ""), ("ngắt", ""))
        return [Wording(verb, device, tail) for verb, tail in pairs]
    if level is None:
        pairs = known.start if action == known.start[0][0] else known.stop
        return [Wording(verb, device, tail) for verb, tail in pairs]
    if action == "chuyển":
        pairs = (("chuyển", "sang"), ("đổi", "sang"), ("bật", ""), ("mở", ""))
        return [Wording(verb, device, join(tail, f"kênh {level}")) for verb, tail in pairs]
    assert known.gauge is not None, f"{device} has no level"
    return _gauge_wordings(device, known.gauge, action, level)


def _gauge_wordings(device: str, gauge: Gauge, action: str, level: int) -> list[Wording]:
    thing = join(gauge.noun, device)
    if action == "đặt":
        text = gauge.level.format(n=level)
        full = (("đặt", "ở"), ("chỉnh", "về"), ("điều chỉnh", "thành"), ("cài", "ở"))
        loose = [Wording(verb, device, tail.format(level=text)) for verb, tail in gauge.loose]
        if not gauge.noun:
            return loose
        return [Wording(verb, thing, f"{tail} {text}") for verb, tail in full] + loose
    text = gauge.step.format(n=level)
    if action == "tăng":
        pairs = (("tăng", "thêm"), ("nâng", "thêm"), ("tăng", "lên thêm"))
    else:
        pairs = (("giảm", "đi"), ("giảm", "bớt"), ("hạ", "bớt"))
    change = gauge.more if action == "tăng" else gauge.less
    loose = [Wording("cho", device, f"{change} {text}")]
    return [Wording(verb, thing, f"{tail} {text}") for verb, tail in pairs] + loose


def plain(combination: Combination) -> str:
    """Return the plain order: ``bật quạt phòng ngủ lên mức 2``."""
    return wordings(combination)[0].text(combination.room)


def confirm(combination: Combination) -> str:
    """Return the one answer: ``Đã bật quạt phòng ngủ lên mức 2``."""
    return f"Đã {plain(combination)}"


def refuse(combination: Combination) -> str:
    """Return the answer about something that the house does not have."""
    return f"Xin lỗi, {combination.room} không có {combination.device}"


def ask(combination: Combination, turn: int) -> str:
    """Return one way of asking for it; turn 0 is the plain one."""
    if turn == 0:
        return capital(plain(combination))
    key = ("ask", combination, turn)
    wording = chance.pick(wordings(combination), *key, "wording")
    place = chance.pick(_PLACES, *key, "place")
    frames: tuple[str, ...] = FRAMES[:5] if place == "colon" else FRAMES
    if place == "last":
        frames += CALLS
    if wording.tail.startswith("đi "):  # "giảm đi 2 mức đi" is clumsy
        frames = tuple(frame for frame in frames if not frame.endswith(" đi"))
    frame = chance.pick(frames, *key, "frame")
    room = combination.room
    at = chance.pick(_prepositions(room, wording), *key, "at")
    if place == "first":
        text = f"{at} {room}, {frame.format(wording.text())}"
    elif place == "colon":
        text = f"{room}: {frame.format(wording.text())}"
    elif place == "last":
        text = frame.format(f"{wording.text()} {at} {room}")
    else:
        text = frame.format(wording.text(place.format(room=room, at=at)))
        text = _with_reason(text, combination, key)
    if not text.endswith("?") and chance.number(*key, "stop") % 4 == 0:
        text += "."
    return capital(text)


def undo(combination: Combination, turn: int) -> str:
    """Return one way of asking for the opposite of an order."""
    key = ("undo", combination, turn)
    wording = wordings(combination)[0]
    if turn:
        wording = chance.pick(wordings(combination), *key, "wording")
    at = chance.pick(("", *_prepositions(combination.room, wording)), *key, "at")
    frame = chance.pick(UNDO_FRAMES, *key, "frame")
    return capital(frame.format(wording.text(join(at, combination.room))))


def _prepositions(room: str, wording: Wording) -> list[str]:
    # "ở phòng ăn ở 55%" is clumsy.
    return [at for at in ROOMS[room] if not wording.tail.startswith(f"{at} ")]


def _with_reason(text: str, combination: Combination, key: tuple[object, ...]) -> str:
    device = DEVICES.get(combination.device)
    change = combination.action in ("tăng", "giảm")
    if device is None or change or chance.number(*key, "because") % 2:
        return text
    if combination.action == "tắt":
        reasons: tuple[str, ...] = ("Tôi sắp ra ngoài", "Muộn rồi", "Tiết kiệm điện nào")
    elif combination.action == "đóng":
        reasons = ("Tôi sắp ra ngoài", "Muộn rồi")
    else:
        reasons = device.because
    return f"{chance.pick(reasons, *key, 'reason')}, {text}"
