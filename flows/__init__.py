"""When Graft's stages run, and what is recorded of them."""

import tasks as tasks  # first of all: it switches telemetry off before anything can phone home
