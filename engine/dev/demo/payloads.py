"""Payloads as the three platforms make them, in the languages their users speak."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

Payload = dict[str, Any]
"""Keys are strings, values are whatever JSON can say."""
Make = Callable[[Random, datetime], Payload]

_NAMES = (
    "John Doe", "Jane Smith", "Łukasz Żółć", "Мария Кузнецова", "Γιώργος Παπαδόπουλος", "田中さくら",
    "김민준", "محمد الأحمد", "שרה כהן", "प्रिया शर्मा", "José Núñez", "Nguyễn Thị Hạnh", "王小明",
    "Zoë O'Brien", "Siân \"Ceri\" Llŷr", "สมชาย ใจดี", "Ólafur Þór", "Ana 👩🏽‍💻 Souza",
)  # fmt: skip
_WORDS = (
    "hello", "everyone", "so", "the", "quarterly", "figures", "look", "good", "можем", "начинать",
    "добрый", "день", "では", "始めましょう", "ありがとう", "大家好", "谢谢", "안녕하세요", "감사합니다",
    "مرحبا", "شكرا", "נתחיל", "धन्यवाद", "größer", "naïve", "façade", "que", "mañana", "σήμερα",
    "🎉", "👍🏽", "deadline", "a/b", "\"quoted\"", "back\\slash", "tab\there", "<b>", "&amp;", "\u2028",
)  # fmt: skip
_TITLES = (
    "Weekly sync", "Планёрка", "朝会", "Retrospectiva 🚀", "ישיבת צוות", "주간 회의", "Überprüfung",
    "اجتماع الفريق", "Σύσκεψη", "Réunion d'équipe", "समीक्षा बैठक",
)  # fmt: skip


def _hex(rng: Random, digits: int) -> str:
    return f"{rng.getrandbits(4 * digits):0{digits}x}"


def _uuid(rng: Random) -> str:
    text = _hex(rng, 32)
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _some(rng: Random, words: tuple[str, ...], least: int, most: int) -> list[str]:
    return [rng.choice(words) for _ in range(rng.randint(least, most))]


def _sentence(rng: Random, least: int = 4, most: int = 30) -> str:
    return " ".join(_some(rng, _WORDS, least, most))


def _metadata(rng: Random) -> Payload:
    return {
        "locale": rng.choice(("en-GB", "ja-JP", "ar-EG", "pt-BR", "ru-RU", "hi-IN")),
        "title": rng.choice(_TITLES),
        "note": _sentence(rng),
        "device": {"os": rng.choice(("macOS", "Android", "Linux")), "battery": rng.randint(0, 100) / 100},
        "tags": _some(rng, _WORDS, 0, 4),
    }


def room(status: str) -> Make:
    """BaxCloud: a room that is created, active, ended or deleted."""

    def make(rng: Random, at: datetime) -> Payload:
        made: Payload = {
            "id": f"room_{_hex(rng, 10)}",
            "name": rng.choice(_TITLES),
            "liveType": rng.choice(("video_call", "audio_call", "live_stream")),
            "status": status,
            "createdAt": _iso(at - timedelta(seconds=rng.randint(1, 7200))),
            "metadata": _metadata(rng),
        }
        if status == "ended":
            made |= {"endedAt": _iso(at), "durationSeconds": rng.randint(60, 72_000) / 10}
        return made

    return make


def participant(moment: str) -> Make:
    """BaxCloud: somebody in a room; `moment` names the time's key."""

    def make(rng: Random, at: datetime) -> Payload:
        return {
            "id": f"part_{_hex(rng, 10)}",
            "userId": f"user-{rng.randint(1, 99_999)}",
            "name": rng.choice(_NAMES),
            "roomId": f"room_{_hex(rng, 10)}",
            "isHost": rng.random() < 0.2,
            moment: _iso(at),
            "metadata": _metadata(rng),
        }

    return make


def recording(status: str) -> Make:
    """BaxCloud: a recording or a stream."""

    def make(rng: Random, at: datetime) -> Payload:
        made: Payload = {
            "id": f"rec_{_hex(rng, 12)}",
            "roomId": f"room_{_hex(rng, 10)}",
            "status": status,
            "at": _iso(at),
            "bitrate": rng.choice((1.5, 2.0, 2.75, 4.0)),
            "layout": {"grid": {"rows": rng.randint(1, 5), "speakers": _some(rng, _NAMES, 1, 4)}},
            "metadata": _metadata(rng),
        }
        if status == "available":
            made["files"] = [_file(rng) for _ in range(rng.randint(1, 3))]
        return made

    return make


def _file(rng: Random) -> Payload:
    name = f"https://storage.example.com/recordings/{_hex(rng, 16)}.mp4?token={_hex(rng, 24)}"
    return {"url": name, "bytes": rng.randint(10**6, 10**10), "seconds": rng.randint(10, 90_000) / 10}


def bedrud_room(rng: Random, at: datetime) -> Payload:
    """Bedrud: a meeting that ended, with everybody who was there."""
    people = [
        {"identity": _uuid(rng), "name": rng.choice(_NAMES), "minutes": rng.randint(1, 600) / 4}
        for _ in range(rng.randint(1, 8))
    ]
    return {"room": rng.choice(_TITLES), "roomId": _uuid(rng), "endedAt": _iso(at), "participants": people}


def bedrud_participant(rng: Random, at: datetime) -> Payload:
    """Bedrud: somebody who came or went."""
    person = {"identity": _uuid(rng), "name": rng.choice(_NAMES), "guest": rng.random() < 0.3}
    return {"room": rng.choice(_TITLES), "at": _iso(at), "participant": person, "metadata": _metadata(rng)}


def bedrud_recording(rng: Random, at: datetime) -> Payload:
    """Bedrud: a finished recording; some carry the whole chat."""
    chat = [
        {"from": rng.choice(_NAMES), "second": rng.randint(0, 72_000) / 20, "text": _sentence(rng)}
        for _ in range(rng.choice((2, 3, 5, 150)))
    ]
    return {"recordingId": _uuid(rng), "completedAt": _iso(at), "file": _file(rng), "chat": chat}


def _utterance(rng: Random, start: float) -> tuple[Payload, float]:
    words, at = [], start
    for word in _some(rng, _WORDS, 3, 14):
        end = round(at + rng.randint(1, 9) / 10, 2)
        words.append({"start": at, "end": end, "word": word, "confidence": rng.randint(1, 10**7) / 1e7})
        at = round(end + rng.choice((0.0, 0.1, 0.5)), 2)
    return {"speaker": rng.choice(_NAMES), "offset": start, "words": words}, at


def _transcript(rng: Random, utterances: int) -> list[Payload]:
    said, at = [], 1.5
    for _ in range(utterances):
        one, at = _utterance(rng, at)
        said.append(one)
    return said


def _numbers(rng: Random) -> Payload:
    """Numbers and keys that JavaScript prints in another way than Python does."""
    return {
        "energy": rng.choice((1e21, 1.5e21, 6.02e23, 123456789012345680000.0)),
        "noise": rng.choice((1e-7, 2.5e-10, 0.000001, -0.0)),
        "bytes": rng.choice((9007199254740991, 9007199254740993, 2**53 + 2)) - rng.randint(0, 1) * 2,
        "secondsBySpeaker": {"10": 2.0, "2": rng.randint(1, 900) / 8, "01": 1.0, "x": 0.1},
    }


def _bot(rng: Random) -> Payload:
    return {"bot_id": _uuid(rng), "extra": _metadata(rng), "stats": _numbers(rng)}


def meeting_completed(rng: Random, at: datetime) -> Payload:
    """Meeting BaaS: the recording and transcript of a meeting, short or long."""
    said = _transcript(rng, rng.choice((1, 1, 2, 2, 2, 35, 70, 80)))
    speakers = sorted({one["speaker"] for one in said})
    mp4 = f"https://storage.example.com/recordings/{_hex(rng, 12)}.mp4?token={_hex(rng, 20)}"
    return _bot(rng) | {"transcript": said, "speakers": speakers, "mp4": mp4, "endedAt": _iso(at)}


def meeting_failed(rng: Random, at: datetime) -> Payload:
    """Meeting BaaS: a bot that could not do its work."""
    error = rng.choice(("CannotJoinMeeting", "TimeoutWaitingToStart", "BotNotAccepted", "InvalidMeetingUrl"))
    return _bot(rng) | {"error": error, "message": _sentence(rng), "failedAt": _iso(at)}


def meeting_started(rng: Random, at: datetime) -> Payload:
    """Meeting BaaS: a bot that is in."""
    url = f"https://meet.example.com/{_hex(rng, 10)}"
    return _bot(rng) | {"meeting_url": url, "startedAt": _iso(at)}


def transcription(rng: Random, at: datetime) -> Payload:
    """Meeting BaaS: what was said lately."""
    return _bot(rng) | {"updatedAt": _iso(at), "transcript": _transcript(rng, rng.choice((1, 1, 1, 2, 3)))}


def calendar(rng: Random, at: datetime) -> Payload:
    """Meeting BaaS: a calendar or an event in it."""
    attendees = [
        {"name": name, "accepted": rng.choice((True, False, None))} for name in _some(rng, _NAMES, 1, 5)
    ]
    start = at + timedelta(minutes=rng.randint(5, 10_000))
    return {
        "calendar_id": _uuid(rng),
        "title": rng.choice(_TITLES),
        "start": _iso(start),
        "durationHours": rng.choice((0.25, 0.5, 1.0, 2.0)),
        "attendees": attendees,
        "metadata": _metadata(rng),
    }
