"""MANY: tickets by the thousand through a cascade: bounded, within budget, resumable, with nothing lost.

On a Dask cluster: `from workshop_lib.bulk.cluster import run_on_cluster` (apart, because Dask takes a second to import).
"""

from workshop_lib.bulk.batch import BatchRun, NoAnswer, Phase, run_batch
from workshop_lib.bulk.budget import most_it_can_cost
from workshop_lib.bulk.jobs import BatchFailed, BatchJobs
from workshop_lib.bulk.records import AsText
from workshop_lib.bulk.rows import ROW_SCHEMA, Row, RowError, final_row, first_row, to_frame
from workshop_lib.bulk.runner import BulkRun, DeadlineExceeded, run_bulk
from workshop_lib.bulk.store import Store, StoreError, StoreInUse, StoreMismatch

__all__ = [
    "ROW_SCHEMA",
    "AsText",
    "BatchFailed",
    "BatchJobs",
    "BatchRun",
    "BulkRun",
    "DeadlineExceeded",
    "NoAnswer",
    "Phase",
    "Row",
    "RowError",
    "Store",
    "StoreError",
    "StoreInUse",
    "StoreMismatch",
    "final_row",
    "first_row",
    "most_it_can_cost",
    "run_batch",
    "run_bulk",
    "to_frame",
]
