"""Rotating an endpoint's signing secret."""

from __future__ import annotations

import os
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field, SecretStr

from engine.api.auth import Caller, CanManage, Needed
from engine.api.bodies import StrictRoute
from engine.api.endpoint_rules import sealing
from engine.api.endpoints import about, known
from engine.api.ids import IdempotencyKey, Origin, claim, origin, text_of, used_before
from engine.api.models import Input
from engine.api.problems import FieldError, Problem, wrong
from engine.api.services import Services
from engine.core.change import RotateSecret, SecretRotated
from engine.core.endpoint import Endpoint
from engine.core.profile import Profile, check_secret, generate_secret, rfc3339

router = APIRouter(prefix="/v1/endpoints", tags=["endpoints"], route_class=StrictRoute)
_S = 1_000_000
_OVERLAP_MAX_S = 30 * 86_400


class RotationInput(Input):
    """How to rotate."""

    secret: SecretStr | None = Field(None, description="Generated if left out.")
    overlap_seconds: Annotated[int, Field(ge=0, le=_OVERLAP_MAX_S)] | None = Field(
        None, description="How long the old secret signs too; null: the profile's. 0: not at all."
    )


class RotationAnswer(BaseModel):
    """The new secret, which is shown this once, and from when on it signs."""

    secret: str | None = Field(None, description="Left out when an Idempotency-Key was repeated.")
    effective_at: str


@router.post("/{endpoint_id}/rotate-secret", response_model=RotationAnswer, response_model_exclude_unset=True)
async def rotate_secret(
    endpoint_id: str,
    services: Needed,
    caller: CanManage,
    given: RotationInput | None = None,
    idempotency_key: IdempotencyKey = None,
) -> RotationAnswer:
    """Sign with a new secret from `effective_at` on, retries included."""
    endpoint = known(services, caller, endpoint_id)
    made = origin(caller, f"POST /v1/endpoints/{endpoint_id}/rotate-secret", idempotency_key)
    command, clear = _rotation(services, (caller, made), endpoint, given or RotationInput())
    chosen = _chosen_text(given)
    claim(services, made, [text_of(command.overlap_us), *([] if chosen is None else [chosen.encode()])])
    is_repeat = services.control.fact_of(command.command_id) is not None
    changed = await services.control.ask(command)
    await services.control.secret_of(changed)  # once the data key is here, all of them open
    if not _is_same(services, command, chosen):
        raise used_before(services, made)
    return _answer(services, changed, None if is_repeat else clear)


def _is_same(services: Services, command: RotateSecret, chosen: str | None) -> bool:
    """Whether the rotation that a command led to, maybe long ago, is the one that is asked for."""
    fact = services.control.fact_of(command.command_id)
    if not isinstance(fact, SecretRotated):
        return True  # of an older control group, or forgotten: only that it was decided is known
    if fact.overlap_us != command.overlap_us:
        return False
    opened = services.configuration.keyring.open(fact.tenant, fact.endpoint_id, fact.secret)
    return chosen is None or opened == chosen


def _rotation(
    services: Services, by: tuple[Caller, Origin], endpoint: Endpoint, given: RotationInput
) -> tuple[RotateSecret, str]:
    """(the command, the secret in the clear)."""
    profile = services.context.profiles.get(endpoint.settings.profile)
    if profile is None:
        raise Problem(409, f"this API does not know the endpoint's profile {endpoint.settings.profile!r}")
    overlap_us = _overlap_us(profile, given.overlap_seconds)
    clear = _chosen(profile, _chosen_text(given)) or generate_secret(profile, os.urandom(32))
    with sealing():
        sealed = services.configuration.keyring.seal_command(endpoint.tenant, endpoint.id, 0, clear)
    return RotateSecret(*about(services, *by, endpoint), sealed, overlap_us), clear


def _chosen_text(given: RotationInput | None) -> str | None:
    return None if given is None or given.secret is None else given.secret.get_secret_value()


def _chosen(profile: Profile, secret: str | None) -> str | None:
    if secret is None:
        return None
    try:
        check_secret(profile, secret)
    except ValueError as error:
        raise wrong(FieldError("secret", str(error))) from None
    return secret


def _overlap_us(profile: Profile, seconds: int | None) -> int:
    if seconds and not profile.signature.is_list:
        raise wrong(
            FieldError(
                "overlap_seconds",
                f"must be 0: the profile {profile.name} sends one signature, which one secret makes; "
                "its receivers take the new secret at effective_at",
            )
        )
    return profile.rotation_overlap_us if seconds is None else seconds * _S


def _answer(services: Services, endpoint: Endpoint, clear: str | None) -> RotationAnswer:
    """Show the secret if the endpoint has it: of two requests at once under one key, one made up another."""
    keyring = services.configuration.keyring
    for secret in reversed(endpoint.secrets):
        if keyring.open(endpoint.tenant, endpoint.id, secret) == clear:
            return RotationAnswer(secret=clear, effective_at=rfc3339(secret.effective_at))
    return RotationAnswer(effective_at=rfc3339(endpoint.secrets[-1].effective_at))
