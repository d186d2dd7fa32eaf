"""What Graft does to images: one folder a stage, by the stage's name.

Nothing of ours phones home: the switches below must be set before albumentations, MLflow, Prefect or the hub client
is imported, and every import of a module in here passes through this file first. A value the user has set stays.
"""

import os
import sys

for _switch, _value in {
    "DO_NOT_TRACK": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}.items():
    os.environ.setdefault(_switch, _value)

# OpenVINO reports its own import to its maker unless this package is absent; it then uses its built-in stand-in.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
