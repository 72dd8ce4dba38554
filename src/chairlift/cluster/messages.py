"""What a replica says to a front end, and how a request gets there: MessagePack in ``bytes``, so
that nothing of ours is ever unpickled, whatever Ray does with its own calls.
"""

from __future__ import annotations

import msgspec

from chairlift.card import ModelCard
from chairlift.engine.messages import Accepted, Activity, Failed, Finished, Message, Preview
from chairlift.request import GenerationRequest


class Report(Message, frozen=True):
    """What a replica has done since the last report to this front end."""

    replica: str
    """Its name."""
    activity: Activity


FromReplica = Accepted | Preview | Finished | Failed | Report

encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(GenerationRequest).decode
decode_card = msgspec.msgpack.Decoder(ModelCard).decode
decode_from_replica = msgspec.msgpack.Decoder(FromReplica).decode
