"""One record of every kind, with no field left at its default: what the golden bytes are made of."""

from __future__ import annotations

from typing import cast

from engine.core import change as c
from engine.core import directory as d
from engine.core import endpoint as e
from engine.core import health as h
from engine.core import lane as l
from engine.core import model as m
from engine.core import notice as n
from engine.core import replay as r

AT = 1_767_225_600_123_456
SETTINGS = c.EndpointSettings(
    url="https://hooks.example.com/é",
    event_types=("room.*", "recording.available"),
    profile="bedrud",
    headers={"x-team": "blue"},
    description="Zoë's endpoint",
    retry_policy=(5_000, 30_000),
    timeout_ms=10_000,
    rate_limit=2.5,
    sealed_headers=c.SealedHeaders("key_1", b"\x01nonce", b"\xfeheaders"),
)
SECRET = c.SealedSecret(2, "key_1", b"\x00\x01nonce", b"\xffsealed", AT, AT + 86_400_000_000)
WHO = ("cmd_1", "acme", "hl_1", AT)
COMMAND = ("cmd_1", "acme", "hl_1", AT, "ep_1")
FACT = ("cmd_1", "acme", "hl_1", AT, "ep_1", 300)

SAMPLES: tuple[object, ...] = (
    m.MessagePublished("acme", "msg_1", "room.ended", b'{"a":1}', AT, "room-1", {"trace": "t1"}),
    m.RoutedBatch(
        3,
        10,
        12,
        (7, 0, 300),
        (
            m.Routing(
                10,
                "acme",
                "msg_1",
                "room.ended",
                AT,
                bytes(range(16)),
                "duplicate",
                ("ep_1", "ep_2"),
                (m.Skipped("ep_3", "disabled"),),
                345,
            ),
            m.Routing(12, verdict="invalid"),
        ),
    ),
    m.DeliveryScheduled(
        *("dlv_1", "acme", "ep_1", "msg_1", "room.ended", 2, "replay", "rpl_1"),
        *(AT, AT - 1, "standard", 4, 99, 3, 10, b'{"type":"room.ended"}'),
    ),
    m.AttemptFinished(
        *("dlv_1", "acme", "ep_1", "msg_1", "room.ended", 2, "resend", "rs_1", AT, 3, 10, AT + 5),
        *(12_345, "failure", 503, "http_5xx", "HTTP 503", "retry", cast(m.Reason, "none yet"), AT + 9),
        *(21, b"busy", "host-1", b"\xc3\x01delivery"),
        endpoint_version=300,
        disables=True,
    ),
    m.InvalidRecord("messages", 3, 10, "payload", "not JSON", b"key", b"\x00value", AT),
    e.Endpoint("ep_1", "acme", SETTINGS, False, "gone", True, 4, 300, (SECRET, SECRET), AT, AT + 1),
    d.Tenant("acme", "Acme", AT, True),
    d.DataKey("key_1", "acme", "mk_1", b"nonce", b"\xfewrapped", AT),
    l.Lane(
        "ep_1", "acme", True, 123_456, 98_765, (123_460, 123_470), "open", 3, AT + 30_000_000, AT, "worker-1"
    ),
    c.CreateEndpoint(*COMMAND, SETTINGS, False, SECRET),
    c.UpdateEndpoint(*COMMAND, ("url", "headers"), SETTINGS, 300),
    c.EnableEndpoint(*COMMAND, 300),
    c.DisableEndpoint(*COMMAND, "too many failures", 4, 300),
    c.DeleteEndpoint(*COMMAND),
    c.EndpointCreated(*FACT, SETTINGS, False, SECRET),
    c.EndpointUpdated(*FACT, ("url",), SETTINGS),
    c.EndpointEnabled(*FACT),
    c.EndpointDisabled(*FACT, "gone"),
    c.EndpointDeleted(*FACT),
    d.TenantCreated("cmd_1", "acme", "hl_1", AT, "Acme"),
    c.CommandRejected("cmd_1", "acme", "hl_1", AT, "ep_1", "EnableEndpoint", e.ALREADY, "already"),
    c.RotateSecret(*COMMAND, SECRET, 86_400_000_000),
    c.SecretRotated(*FACT, SECRET, 86_400_000_000),
    d.ApiKey("k1", "acme", ("manage", "read"), b"\x00digest", "CI", AT + 9, AT, AT + 5),
    d.EventType("room.ended", "A room ended", '{"type":"object"}', '{"id":"r"}', AT),
    d.CreateTenant(*WHO, "Acme"),
    d.DeleteTenant(*WHO),
    d.CreateKey(*WHO, "k1", ("publish",), b"\x00digest", "CI", AT + 9),
    d.RevokeKey(*WHO, "k1"),
    d.PutEventType(*WHO, "room.ended", "A room ended", '{"type":"object"}', '{"id":"r"}'),
    d.DeleteEventType(*WHO, "room.ended"),
    d.RewrapDataKey(*WHO, "mk_1", d.DataKey("key_1", "acme", "mk_2", b"nonce", b"\xfewrapped", AT)),
    d.TenantDeleted(*WHO),
    d.KeyCreated(*WHO, "k1", ("publish",), b"\x00digest", "CI", AT + 9),
    d.KeyRevoked(*WHO, "k1"),
    d.EventTypePut(*WHO, "room.ended", "A room ended", '{"type":"object"}', '{"id":"r"}'),
    d.EventTypeDeleted(*WHO, "room.ended"),
    d.DataKeyRewrapped(*WHO, "key_1", "mk_2"),
    r.Resend(*COMMAND, "dlv_1", "msg_1", 3, 300, AT - 9),
    r.SendTest(*COMMAND, "ping", b'{"a":1}'),
    r.StartReplay(*WHO, "rpl_1", "ep_1", AT - 9, AT, "missed", ("room.*",), 2.5),
    r.CancelReplay(*WHO, "rpl_1"),
    r.ReplayStarted(*WHO, "rpl_1", "ep_1", AT - 9, AT, "failed", ("room.*",), 2.5, (300, 0)),
    r.ReplayFinished(*WHO, "rpl_1", "ep_1", "disabled", 300, 2, 1),
    r.ReplayCancelled(*WHO, "rpl_1", "ep_1", 300),
    r.Replay(
        *("rpl_1", "acme", "hl_1", "cmd_1", "ep_1", AT - 9, AT, "missed", ("room.*",), 2.5, "finished"),
        *("disabled",),
        *(400, 300, 2, 1, AT, AT + 1, AT + 2, 1, 77),
        ends=(300, 0),
        cursors=(200, 0),
        positions=(5, 6, 7, 8),
        made_ahead=21,
        skipped_ahead=1,
    ),
    r.ResentBatch(
        *("cmd_1", "acme", "hl_1", AT),
        (r.Resent("dlv_2", "ep_1", "msg_1", "room.ended", "replay", "rpl_1", AT, 3, 300),),
    ),
    h.EndpointHealth(
        *("ep_1", "acme", 300, AT, AT + 9, 41, {"http_5xx": 40, "timeout": 1}, "http_5xx", 503, 345),
        *(AT - 9, AT + 10, 299, AT - 8, 7, AT + 11, AT - 7, AT - 6, 123_456),
    ),
    n.Notice(
        *("ntc_1", "warned", "acme", "ep_1", AT, "https://hooks.example.com/é", AT - 9, 41, 7),
        *({"http_5xx": 40, "timeout": 1}, "http_5xx", 503, 345, AT - 10, AT + 9, "only failures"),
    ),
)
