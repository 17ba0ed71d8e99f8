"""Questions about a state that the request itself tells."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from data import chance
from data.home import DEVICES, INVERSE, ROOMS, Combination
from data.phrasing import capital, join

#: (request, response, the combinations that they speak of)
Question = tuple[str, str, tuple[Combination, ...]]

_JOINTS = ("{}. {}.", "{}, còn {}.")
_CHECKS = ("{} phải không?", "{} đúng không?", "có phải {} không?")
_OTHERS = ("same device", "same room", "any", "any")


def states(combinations: Sequence[Combination]) -> list[Combination]:
    """Return those that describe a state: everything but a change by some difference."""
    return [c for c in combinations if c.action not in ("tăng", "giảm")]


def subject(state: Combination, at: str = "") -> str:
    """Return what a state is about: ``nhiệt độ điều hòa phòng ngủ``."""
    gauge = DEVICES[state.device].gauge if state.action == "đặt" else None
    return join(gauge.noun if gauge else "", state.device, at, state.room)


def predicate(state: Combination) -> str:
    """Return the state itself: ``đang bật``, ``đang ở mức 2``."""
    if state.action == "chuyển":
        return f"đang ở kênh {state.level}"
    if state.action != "đặt":
        return f"đang {state.action}"
    gauge = DEVICES[state.device].gauge
    assert gauge is not None, f"{state.device} has no level"
    return f"{'là' if gauge.noun else 'đang ở'} {gauge.level.format(n=state.level)}"


def sentence(state: Combination) -> str:
    """Return the answer's form of a state: ``quạt phòng ngủ đang ở mức 2``."""
    return f"{subject(state)} {predicate(state)}"


def told(state: Combination, *key: object) -> str:
    """Return one way of telling a state."""
    at = chance.pick((*[""] * 6, *ROOMS[state.room]), *key, "at")
    how = predicate(state)
    if state.level is not None and chance.number(*key, "verb") % 3 == 0:
        for usual, other in (("là", "đang ở"), ("ở kênh", "mở kênh"), ("ở mức", "chạy mức")):
            if usual in how:
                how = how.replace(usual, other)
                break
    return f"{subject(state, at)} {how}"


def asked(state: Combination, *key: object) -> str:
    """Return one way of asking for a state, with its full stop or question mark."""
    name = subject(state)
    if state.action == "chuyển":
        forms = ("{} đang ở kênh mấy?", "{} đang mở kênh nào?", "cho tôi biết {} đang ở kênh mấy.")
    elif state.action == "đặt" and name.startswith(state.device):
        forms = ("{} đang ở mức mấy?", "{} đang chạy mức nào?", "cho tôi biết {} đang ở mức mấy.")
    elif state.action == "đặt":
        forms = ("{} là bao nhiêu?", "{} đang là bao nhiêu?", "cho tôi biết {}.")
    else:
        pair = "bật hay tắt" if state.action in ("bật", "tắt") else "mở hay đóng"
        forms = ("{} đang " + pair + "?", "{} thế nào?", "cho tôi biết {} đang " + pair + ".")
    return capital(chance.pick(forms, *key, "form").format(name))


def about_one(state: Combination) -> Question:
    """Tell one state and ask for it."""
    key = ("one", state)
    request = f"{capital(told(state, *key))}. {asked(state, *key)}"
    return request, capital(sentence(state)), (state,)


def yes_or_no(state: Combination, turn: int) -> Question:
    """Tell whether something is on (or open) and ask whether it is."""
    yes = state.action in ("bật", "mở")
    wanted = state if yes else dataclasses.replace(state, action=INVERSE[state.action])
    form = chance.pick(_CHECKS, "check", state, turn)
    request = f"{capital(told(state, 'check', state, turn))}. "
    request += capital(form.format(sentence(wanted)))
    word = "Đúng" if yes else "Không"
    return request, f"{word}, {sentence(state)}", tuple(dict.fromkeys((state, wanted)))


def about_two(first: Combination, second: Combination) -> Question:
    """Tell two states and ask for one of them."""
    key = ("two", first, second)
    wanted = chance.pick((first, second), *key)
    request = f"{_tell(first, second, *key)}{asked(wanted, *key)}"
    return request, capital(sentence(wanted)), (first, second)


def partner(state: Combination, pool: Sequence[Combination], turn: int) -> Combination | None:
    """Find another device's state to tell beside one: often like it, so that it can mislead."""
    key = ("partner", state, turn)
    rule = chance.pick(_OTHERS, *key, "rule")
    fit = [
        other
        for other in pool
        if (other.device, other.room) != (state.device, state.room)
        and (rule != "same device" or other.device == state.device)
        and (rule != "same room" or other.room == state.room)
    ]
    return chance.pick(fit, *key) if fit else None


def _tell(first: Combination, second: Combination, *key: object) -> str:
    joint = chance.pick(_JOINTS, *key, "joint")
    start = capital(told(first, *key, 1))
    end = told(second, *key, 2)
    return joint.format(start, capital(end) if joint.startswith("{}.") else end) + " "
