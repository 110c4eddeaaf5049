"""THE LOCAL DOOR: Bedrock's protocol on 127.0.0.1 with small, real models behind it."""

from workshop_lib.bedrock.pacing import Quota
from workshop_lib.local.batch import BUCKET, ROLE_ARN, BatchFaults
from workshop_lib.local.faults import Fault
from workshop_lib.local.server import LocalEndpoint

__all__ = ["BUCKET", "ROLE_ARN", "BatchFaults", "Fault", "LocalEndpoint", "Quota"]
